"""datasets: what the registry knows by id."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.data.read.registry import Entry


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on standard output.")
def datasets(name: str | None, as_json: bool) -> None:
    """List the datasets known by id, or show one in full.

    \b
    Example: pipe datasets
             pipe datasets s1K-1.1
    """
    from pipeline.cli.show import say_json
    from pipeline.data.read.registry import entries, find

    found = find(name) if name else entries()
    if as_json:
        return say_json({"datasets": [entry.as_json() for entry in found]})
    if name:
        return click.echo("\n\n".join(map(_in_full, found)))
    _draw_table()


def _in_full(entry: Entry) -> str:
    from pipeline.data.read.registry import FORMS, flow

    facts = {
        "also": ", ".join(entry.aliases),
        "config": f"{entry.config}, the default" if entry.is_default else entry.config,
        "split": entry.split,
        "form": FORMS[entry.form].replace("`", ""),
        "rows": entry.rows_text,
        "licence": entry.licence_text,
        "teacher": entry.teacher_text,
        "columns": flow(entry.columns),
        "note": textwrap.fill(entry.note, 78, subsequent_indent=" " * 17),
        "not confirmed": ", ".join(entry.unconfirmed),
    }
    if entry.config is None:
        del facts["config"]
    lines = (f"  {key:14} {value}" for key, value in facts.items() if value)
    return "\n".join((click.style(entry.id, bold=True), *lines))


def _draw_table() -> None:
    from pipeline.cli.table import draw, table
    from pipeline.data.read.registry import entries

    groups = groupby(entries(), lambda entry: entry.id)
    rows = [cells for _, configs in groups for cells in _lines(list(configs))]
    columns = ("dataset and its configs", "rows", "licence, duties of a model")
    made = table(columns, rows, left=(0, 2), whole=(1,))
    # an id is folded last
    made.expand, made.columns[0].ratio, made.columns[2].ratio = True, 5, 3
    draw(made)
    click.echo("One in full: pipe datasets NAME. [?] is not confirmed. See docs/datasets.md.")


def _lines(configs: list[Entry]) -> Iterator[tuple[str, str, str]]:
    """The dataset, its other ids, its configs."""
    first = configs[0]
    yield first.id, "" if first.config else first.rows_text, first.licence_text
    for alias in first.aliases:
        yield f"  or {alias}", "", ""
    for entry in configs:
        if entry.config:
            yield f"  {entry.config}", entry.rows_text, ""
