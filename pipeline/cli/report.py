"""report: one page of what a run did, or of two runs compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import given_options, open_work, run_options

if TYPE_CHECKING:
    from pipeline.report import Gap
    from pipeline.run import Run


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN [RUN]]")
@run_options
@click.option("--open", "open_it", is_flag=True, help="Open the page in the browser.")
def report(runs: tuple[str, ...], open_it: bool, as_json: bool, **options: Any) -> None:
    """Write report.html, or a page that compares two runs.

    A RUN is a name under runs/ or a path. Example: pipe report -r demo

    \b
    pipe report demo demo-r16    # what changed, and what came of it
    """
    _check_usage(runs, options)
    path, gaps = _written(runs, options)
    for gap in gaps:
        click.secho(gap.said, fg="yellow", err=True)
    if as_json:
        from pipeline.cli.show import say_json

        say_json({"report": str(path)})
    else:
        click.echo(str(path))
    if open_it:
        _open(path)


def _check_usage(runs: tuple[str, ...], options: dict[str, Any]) -> None:
    if len(runs) > 2:
        raise click.UsageError("Two runs can be compared; there are more here.")
    if runs and any(options.values()):
        raise click.UsageError("Name the runs, or give -r, --run and --set: not both.")


def _written(runs: tuple[str, ...], options: dict[str, Any]) -> tuple[Path, list[Gap]]:
    from pipeline.report import write_report, write_versus

    if len(runs) == 2:
        return write_versus(_run(runs[0]), _run(runs[1]))
    if runs:
        return write_report(_run(runs[0]))
    work = open_work(**options)
    return write_report(work.run, given_options())


def _run(name: str) -> Run:
    """Raises PipeError where there is no such run, naming those there are."""
    from pipeline.errors import PipeError
    from pipeline.run import Run

    for root in (Path("runs") / name, Path(name)):
        if (root / "recipe.yaml").is_file():
            return Run(root)
    there = sorted(path.parent.name for path in Path("runs").glob("*/recipe.yaml"))
    hint = f"There are: {', '.join(there)}." if there else "There are none: pipe prepare makes one."
    raise PipeError(f"There is no run {name} under runs/, nor at that path.", hint)


def _open(path: Path) -> None:
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        click.secho("No browser could be opened here.", fg="yellow", err=True)
