"""status and report: what is there, what is stale, and how good it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import open_work, run_options, with_options

if TYPE_CHECKING:
    from pipeline.run import Run

_COLORS = {"done": "green", "missing": None, "stale": "yellow", "changed": "red"}


@click.command()
@run_options
def status(as_json: bool, **options: Any) -> None:
    """What is done, stale or missing; the next command.

    Example: pipe status -r demo --json
    """
    from pipeline import workflow
    from pipeline.cli.show import say_json
    from pipeline.run.folder import MADE_BY

    work = open_work(**options)
    run, found = work.run, workflow.status(work)
    if as_json:
        return say_json({"run": run.name, "stages": found})
    click.echo(f"run {run.root}")
    for stage, state in found.items():
        click.echo(f"  {stage:7} {click.style(state, fg=_COLORS[state])}")
    undone = (stage for stage, state in found.items() if state != "done")
    if (first := next(undone, None)) is not None:
        force = " --force" if found[first] == "changed" else ""
        given: str = click.get_current_context().find_root().obj
        click.echo(with_options(f"next: {MADE_BY[first]}{force}", given))


@click.command()
@run_options
def report(as_json: bool, **options: Any) -> None:
    """Write report.html: scores, loss, gates, samples.

    Example: pipe report -r demo
    """
    from pipeline.cli.show import say_json
    from pipeline.report import write_report

    work = open_work(**options)
    path = write_report(work.recipe, work.run)
    return say_json({"report": str(path)}) if as_json else click.echo(str(path))


def show_scores(run: Run, as_json: bool) -> None:
    """The table of `pipe eval`."""
    from rich.console import Console
    from rich.table import Table

    from pipeline.report import scores

    results = scores(run)
    if as_json:
        from pipeline.cli.show import say_json

        return say_json(results)
    table = Table(title=f"{run.name}: {results['items']} test questions")
    for column in ("engine", "exact match", "95% interval", "well formed", "cut off", "tokens"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for name, score in results["engines"].items():
        match = score["exact_match"]
        table.add_row(
            name,
            f"{match['value']:.1%}",
            f"{match['low']:.1%} to {match['high']:.1%}",
            f"{score['well_formed']['value']:.1%}",
            f"{score['truncated']['value']:.1%}",
            f"{score['mean_tokens']:.0f}",
        )
    Console().print(table)
