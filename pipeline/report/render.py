"""Fills a template of modelfiles/report/: everything escaped, hostile characters made visible."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline.assets import asset
from pipeline.report import words
from pipeline.report.safe import visible
from pipeline.run.files import write_text


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Fill `template` and write it, self-contained; equal values give equal bytes."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    folder = asset("modelfiles/report")
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((folder / "style.css").read_text(encoding="utf-8"))
    page = environment.get_template(template)
    write_text(path, page.render(style=style, words=words, **values))
    return path
