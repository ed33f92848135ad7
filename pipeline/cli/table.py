"""The one look of the tables that commands print."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    left: Collection[int] = (0,),
    whole: bool = False,
) -> Table:
    """Figures, with their last digits below one another; the columns numbered in `left` are text.

    Where the terminal is too narrow cells are folded; if `whole`, its lines are broken instead.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    cells = list(rows)
    for number, column in enumerate(columns):
        justify: Any = "left" if number in left else "right"
        width = max((len(row[number]) for row in cells), default=0) if whole else None
        made.add_column(column, justify=justify, min_width=width, overflow="fold")
    for row in cells:
        made.add_row(*row)
    return made
