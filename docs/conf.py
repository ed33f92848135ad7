"""Sphinx builds the pages: MyST Markdown, notebooks by MyST-NB, furo's look."""

import os
from importlib.metadata import version as version_of

project = "r1pipe"
author = "the r1pipe authors"
version = release = version_of("r1pipe")

extensions = ["myst_nb", "sphinx_copybutton"]
exclude_patterns = ["notebooks/*.ipynb"]  # the same notebooks once more, for Colab
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "furo"
html_title = f"pipe {release}"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

# Executed where that is asked for: one trains, which takes a minute.
nb_execution_mode = "force" if os.environ.get("DOCS_EXECUTE") else "off"
nb_execution_excludepatterns = ["notebooks/one-gpu.md"]
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars and warnings of libraries
