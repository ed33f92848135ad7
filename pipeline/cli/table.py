"""The one look of the tables that commands print."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_USUAL = 80
"""Characters of a line. A wider table that cannot be folded has its columns one space apart."""


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    left: Collection[int] = (0,),
    whole: Collection[int] = (),
    bold: Collection[int] = (),
) -> Table:
    """Figures, with their last digits below one another; the columns numbered in `left` are text.

    Where the terminal is too narrow cells are folded, but not in the columns numbered in `whole`.
    The rows numbered in `bold` are set off.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    cells = list(rows)
    widths = [_widest(head, [row[at] for row in cells]) for at, head in enumerate(columns)]
    dense = len(whole) == len(columns) and sum(widths) + 2 * len(widths) > _USUAL
    gap = (0, 0 if dense else 1, 0, 0)
    made = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=gap)
    for number, column in enumerate(columns):
        justify: Any = "left" if number in left else "right"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=number in whole)
    for number, row in enumerate(cells):
        # Text: a Console reads brackets as markup
        made.add_row(*map(Text, row), style="bold" if number in bold else None)
    return made


def _widest(head: str, cells: Sequence[str]) -> int:
    return max(map(len, (*head.split("\n"), *cells)))


def draw(made: Table) -> None:
    """Print a table; the terminal breaks the lines of one whose columns are all whole."""
    from rich.console import Console

    console = Console()
    if all(column.no_wrap for column in made.columns):
        # rich would cut them off
        console.width = max(console.width, Console(width=1000).measure(made).maximum)
    console.print(made)


def brief_interval(name: str, value: Mapping[str, Any]) -> str:
    """A metric's 95% interval for a narrow column: of a share in percent, without the sign."""
    from pipeline.report.words import metric

    return metric(name).between(value).replace("%", "").replace(" to ", "-")
