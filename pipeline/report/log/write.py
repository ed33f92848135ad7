"""log.md: gathers, fills the template, and lets no text of others be Markdown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from pipeline import __version__
from pipeline.assets import asset
from pipeline.card import markdown
from pipeline.report.gather import gather
from pipeline.report.log.data import data
from pipeline.report.log.sections import (
    doubts,
    gates,
    losses,
    paragraph,
    peaks,
    scores,
    settings,
    setup,
    when,
)
from pipeline.report.log.studies import comparison, exported, quantization
from pipeline.report.reproduce import commands, pinned_recipe
from pipeline.report.safe import visible
from pipeline.report.summary import summary
from pipeline.report.view import Gap
from pipeline.run import Run
from pipeline.run.files import write_text
from pipeline.run.secrets import harmless


def write_log(run: Run) -> tuple[Path, list[Gap]]:
    """Write log.md; return its path, and what is missing or no longer true.

    Raises MissingInput where no stage has finished.
    """
    text, gaps = log_text(run)
    path = run.root / "log.md"
    write_text(path, text)
    return path, gaps


def log_text(run: Run) -> tuple[str, list[Gap]]:
    """The log, and what is missing or no longer true; the same run gives the same text.

    Its commands mean the run by its own recipe.yaml, however it was asked for. A comparison and a
    quantization study are told where the run has them.
    Raises MissingInput where no stage has finished.
    """
    view = gather(run)
    answers, compared, studied = summary(view), comparison(view), quantization(view)
    gaps = [*view.gaps.values(), *view.warnings, *view.freed_gaps]
    gaps += [study.gap for study in (compared, studied) if study.gap]
    text = _filled(
        view=view,
        version=__version__,
        when=when(view),
        paragraph=paragraph(answers),
        run_it="\n".join(answers[-1].commands),
        setup=setup(view),
        settings=settings(view),
        compared=compared,
        peaks=peaks(view),
        studied=studied,
        exported=exported(view),
        data=data(view),
        scores=scores(view),
        doubts=doubts(view),
        losses=losses(view),
        gates=gates(view),
        gaps=gaps,
        commands="\n".join(commands(view)),
        recipe=pinned_recipe(view),
    )
    return text, gaps


def plain(value: Any) -> Any:
    """Text in one line that Markdown and HTML show as it is; what a filter here made stays so."""
    if isinstance(value, Markup):
        return value
    return Markup(markdown.plain(_shown(value)))


def code(value: Any) -> Markup:
    """A code span, for outside of tables, that nothing in the text can close."""
    return Markup(markdown.code(_shown(value)))


def fenced(value: Any, language: str) -> Markup:
    """A block of code that nothing in the text can close."""
    return Markup(markdown.fenced(_shown(value), language))


def _shown(value: Any) -> str:
    return str(visible(harmless(str(value))))


def _filled(**values: Mapping[str, Any] | Any) -> str:
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(asset("modelfiles/report")),
        autoescape=True,  # of macros' results, so that they are not made plain a second time
        finalize=plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": code, "fenced": fenced}
    return environment.get_template("log.md.jinja").render(**values)
