"""clean: what a run no longer needs, shown first and then removed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import (
    dry_run_option,
    for_this_run,
    given_options,
    open_work,
    run_options,
    with_options,
)

if TYPE_CHECKING:
    from pipeline.run import Run
    from pipeline.workflow.cleanable import Item
    from pipeline.workflow.elsewhere import Place

    Found = dict[Run, list[Item]]

_FLAGS = {"exports": "--exports", "variants": "--compare", "unfinished": "--unfinished"}


@click.command()
@run_options
@dry_run_option
@click.option("--yes", is_flag=True, help="Remove it without asking.")
@click.option("--exports", is_flag=True, help="Also GGUF files that Ollama has.")
@click.option("--compare", "variants", is_flag=True,
              help="Also the weights of all variants but the best.")  # fmt: skip
@click.option("--unfinished", is_flag=True,
              help="Also what a stopped eval or prepare would go on from.")  # fmt: skip
@click.option("--all-runs", is_flag=True, help="Every run under runs/.")
def clean(dry_run: bool, yes: bool, all_runs: bool, as_json: bool, **options: Any) -> None:
    """Free the disk that a run no longer needs; asks first.

    What was trained stays, with its rows, metrics, manifests and pages, and so does a training
    that can be gone on with. A stage whose files went is still done: none is made again unasked.

    \b
    Examples:
      pipe clean
      pipe clean --exports --yes
      pipe clean --all-runs --dry-run
    """
    from pipeline.workflow.clean import clean as remove
    from pipeline.workflow.clean import looked_through
    from pipeline.workflow.cleanable import Wish
    from pipeline.workflow.elsewhere import elsewhere

    if all_runs and (options["recipe"] or options["run_name"]):
        raise click.UsageError("--all-runs takes every run: leave out -r and --run.")
    wishes = {name: options.pop(name) for name in _FLAGS}
    wish, work = Wish(**wishes), open_work(**options)
    runs = _all_runs() if all_runs else [work.run]
    found = _each(runs, lambda run: looked_through(run, wish), skip=all_runs)
    places = elsewhere(list(found))
    if not as_json:
        _show(found, places, every=all_runs)
    agreed = not dry_run and bool(_going(found)) and (yes or (not as_json and _asked(found)))
    if agreed:
        shown = {run: {item.path for item in items} for run, items in found.items()}
        found = _each(list(found), lambda run: remove(run, wish, shown[run]), skip=all_runs)
    if as_json:
        return _say_json(found, places, agreed)
    flags = [flag for name, flag in _FLAGS.items() if wishes[name]]
    _end(found, agreed, " ".join([*flags, *(["--all-runs"] if all_runs else [])]))


def _all_runs() -> list[Run]:
    from pathlib import Path

    from pipeline.run import Run
    from pipeline.workflow.clean import is_run

    return [Run(folder) for folder in sorted(Path("runs").glob("*")) if is_run(folder)]


def _each(runs: Sequence[Run], look: Callable[[Run], list[Item]], *, skip: bool) -> Found:
    """What `look` finds of each run; with `skip` one that cannot be looked at is said, and left."""
    from pipeline.errors import PipeError

    found: Found = {}
    for run in runs:
        try:
            found[run] = look(run)
        except PipeError as error:
            if not skip:
                raise
            click.secho(f"{run.root} is left out: {error.message}", fg="yellow", err=True)
    return found


def _going(found: Found) -> list[Item]:
    return [item for items in found.values() for item in items if item.goes]


def _total(found: Found) -> str:
    from pipeline.report.words import size

    return size(sum(item.bytes for item in _going(found)))


def _asked(found: Found) -> bool:
    """The answer at a terminal; elsewhere no."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return click.confirm(f"Free {_total(found)}?")


def _end(found: Found, removed: bool, flags: str) -> None:
    if removed:
        return click.echo(f"Freed {_total(found)}.")
    if not _going(found):
        return click.echo("There is nothing to free.")
    command = " ".join(filter(None, [for_this_run("pipe clean"), flags, "--yes"]))
    return click.echo(f"{_total(found)} can be freed; nothing was removed. To remove it: {command}")


def _say_json(found: Found, places: Sequence[Place], removed: bool) -> None:
    from pipeline.cli.show import say_json

    runs = [
        {"run": run.name, "items": [item.as_json() for item in items]}
        for run, items in found.items()
    ]
    total = sum(item.bytes for item in _going(found))
    outside = [place.as_json() for place in places]
    say_json({"runs": runs, "bytes": total, "removed": removed, "elsewhere": outside})


def _show(found: Found, places: Sequence[Place], *, every: bool) -> None:
    """What goes, what stays and why, and what others keep; commands name their run."""
    from pipeline.report.words import size

    for run, items in found.items():
        click.echo(f"run {run.root}")
        options = run.options if every else given_options()
        for goes, columns in (
            (True, ("goes", "size", "why that is safe", "to have it again")),
            (False, ("stays", "size", "why", "how it may go")),
        ):
            rows = [
                (item.path, size(item.bytes), item.why, with_options(item.again, options))
                for item in items
                if item.goes == goes
            ]
            _print(columns, rows)
    others = [(place.what, size(place.bytes), place.where, place.how) for place in places]
    _print(("not touched", "size", "where", "how it may go"), others)


def _print(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from pipeline.cli.table import draw, table

    if rows:
        draw(table(columns, rows, left=(0, 2, 3)))
