"""prepare: the rows, what they would be, and how the model sees them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import (
    dry_run_option,
    for_this_run,
    force_option,
    open_work,
    run_options,
    yes_option,
)
from pipeline.cli.screen import harmless
from pipeline.cli.stage import finished, say_next

if TYPE_CHECKING:
    from pipeline.workflow import Work

_UNKNOWN = {
    False: "not known: look at the dataset's card",
    True: "not known: it is your file, and its terms are yours to know",
}
"""By whether the rows lie in a file."""


@click.command()
@run_options
@force_option
@dry_run_option
@yes_option
@click.option("--show", type=click.IntRange(1), metavar="N", help="Print N rows as trained.")
def prepare(
    force: bool, dry_run: bool, accept: bool, show: int | None, as_json: bool, **options: Any
) -> None:
    """Fetch, clean, split and encode the reasoning rows.

    \b
    Examples:
      pipe prepare -r llama3.2-1b-r1 --set data.sources.0.limit=2000
      pipe prepare --dry-run
      pipe prepare --show 3
    """
    from pipeline import workflow
    from pipeline.report import picture_of_data

    work = open_work(**options, force=force, accept=accept)
    if dry_run:
        return _show_expected(work, as_json)
    manifest = workflow.prepare(work)
    if show:
        return _show_rows(workflow.examples(work, show), as_json)
    finished(manifest, as_json, work.run.folder("data"))
    if not as_json:
        click.echo(f"{picture_of_data(work.run)}: the rows in a picture")
        click.echo(_counted(manifest.counts, work.run.folder("data")))
        say_next("pipe train")


def _counted(counts: Mapping[str, int], folder: Path) -> str:
    """How many rows there are for what, and where those are that were dropped."""
    kept = f"{counts['train']:,} to train on, {counts['eval']:,} that steer"
    dropped = f"{counts['rejects']:,} dropped"
    reasons = f": {folder / 'rejects.jsonl'} says why" if counts["rejects"] else ""
    return f"Rows: {kept}, {counts['test']:,} held out, {dropped}{reasons}"


def _show_expected(work: Work, as_json: bool) -> None:
    """A line a source, and what cannot be known or done."""
    from dataclasses import asdict

    from pipeline import workflow
    from pipeline.cli.show import say_json

    found = workflow.expected(work)
    status = workflow.status(work)["data"]
    if as_json:
        sources = [asdict(each) for each in found]
        return say_json({"run": work.run.name, "status": status, "sources": sources})
    click.echo(f"recipe {work.recipe.name}, run {work.run.root}, data now {status}")
    for each in found:
        place = " ".join(part for part in (each.dataset, each.config, each.split) if part)
        columns = f"; columns: {each.columns}" if each.columns else ""
        click.echo(f"  {place}: {_rows(each)}{columns}")
        duties = f" ({', '.join(each.duties)})" if each.duties else ""
        click.echo(f"      licence: {each.licence or _UNKNOWN[each.local]}{duties}")
        if each.problem:
            click.secho(indent(for_this_run(each.problem), " " * 6), fg="yellow")
    known = [each.tokens for each in found if each.tokens]
    if len(known) == len(found):
        click.echo(f"  in all about {sum(known):,} tokens, before duplicates are dropped")


def _rows(each: Any) -> str:
    rows = "rows not known" if each.rows is None else f"{each.rows:,} rows"
    if each.tokens is None:
        return rows
    return f"{rows} of about {each.tokens_per_row:.0f} tokens: {each.tokens:,} tokens"


def _show_rows(rows: list[Any], as_json: bool) -> None:
    """What is supervised stands in green, between two rules."""
    from dataclasses import asdict

    from pipeline.cli.show import say_json

    if as_json:
        return say_json([asdict(row) for row in rows])
    for row in rows:
        title = f"{row.id} ({row.source}): {row.tokens} tokens, {row.supervised} supervised"
        click.secho(title, bold=True)
        click.secho(harmless(row.prompt), dim=True)
        click.echo("-------- supervised:")
        click.secho(harmless(row.target), fg="green")
        click.echo("-------- end")
