"""Options that many commands share, and what they mean together."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pipeline.run import Emit, Event
    from pipeline.workflow import Work

Command = TypeVar("Command", bound=Callable[..., Any])

_RUN_OPTIONS = (
    click.option("-r", "--recipe", metavar="NAME|PATH", help="Recipe; default: pipe.yaml here."),
    click.option("--run", "run_name", metavar="NAME", help="Run folder under runs/, or a path."),
    click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Override a recipe value, such as train.lora.r=32; repeatable.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Result as JSON on standard output."),
)


def run_options(command: Command) -> Command:
    """-r, --run, --set, --json."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command


_OF_A_RUN = re.compile(
    r"(pipe (?:prepare|train|export|register|check|eval|run|status|report|log"
    r"|publish|clean|chat|plan|compare|quant|price))\b(?! -r | --use )"
)
"""Not one that names its recipe already, nor one that takes none."""

force_option = click.option("--force", is_flag=True, help="Do it again though it is done.")
yes_option = click.option(
    "--yes", "accept", is_flag=True, help="Take the columns found in a dataset not described."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done.")


def open_work(
    recipe: str | None,
    run_name: str | None,
    overrides: tuple[str, ...],
    *,
    force: bool = False,
    accept: bool = False,
) -> Work:
    """The recipe and the run that the options mean, with events drawn on standard error."""
    context = click.get_current_context()
    # as they were typed: `overrides` may hold what other options of a command stand for
    typed = [("--set", text) for text in context.params.get("overrides", ())]
    chosen = [("-r", recipe), ("--run", run_name), *typed]
    given = [part for option, value in chosen if value for part in (option, value)]
    context.find_root().obj = options = shlex.join(given)

    from pipeline.cli.show import drawing
    from pipeline.recipe import load
    from pipeline.run import Run
    from pipeline.workflow import Work

    loaded = load(recipe, overrides).recipe
    emit = _naming(drawing(), options)
    return Work(loaded, Run.of(loaded, run_name), emit, force, accept)


def _naming(emit: Emit, options: str) -> Emit:
    """The same, with these options in the commands that notes name."""
    from pipeline.run import Note

    def told(event: Event) -> None:
        if isinstance(event, Note):
            event = replace(event, text=with_options(event.text, options))
        emit(event)

    return told


def given_options() -> str:
    """What named the recipe, the run and its settings, as `open_work` got it; else empty."""
    return click.get_current_context().find_root().obj or ""


def for_this_run(text: str) -> str:
    """The commands that a text names, for the recipe and run that were asked for."""
    return with_options(text, given_options())


def with_options(text: str, options: str) -> str:
    """The commands that a text names, with these options."""
    return _OF_A_RUN.sub(lambda found: f"{found[1]} {options}", text) if options else text
