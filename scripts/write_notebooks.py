"""Write docs/notebooks/*.ipynb, for Colab and Jupyter, from the text notebooks beside them."""

from pathlib import Path

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"


def notebook(source: Path) -> NotebookNode:
    """The notebook that a MyST text holds, without outputs; the same text gives the same bytes."""
    made = read_myst_markdown_notebook(source.read_text(encoding="utf-8"))
    del made.metadata["file_format"]
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"
    return made


def as_json(source: Path) -> str:
    """What the .ipynb beside it holds."""
    return nbformat.writes(notebook(source)) + "\n"


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.md")):
        path.with_suffix(".ipynb").write_text(as_json(path), encoding="utf-8")
