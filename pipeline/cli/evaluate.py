"""eval: the table before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import dry_run_option, force_option, open_work, run_options
from pipeline.cli.stage import preview

if TYPE_CHECKING:
    from pipeline.run import Run


@click.command("eval")
@run_options
@force_option
@dry_run_option
def evaluate(force: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Ask every engine the test questions, before and after.

    Example: pipe eval --set eval.limit=50
    """
    from pipeline import workflow

    work = open_work(**options, force=force)
    if dry_run:
        return preview(work, ["eval"], as_json)
    workflow.evaluate(work)
    show_scores(work.run, as_json)


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
