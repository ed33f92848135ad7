"""Names beside points, so that no name covers another or a point."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, text_width

_LINE = 15.0
"""Height of a line of text, px."""
_GAP = 7.0


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    width: float
    height: float

    def meets(self, other: "Box") -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


def place(anchors: Sequence[tuple[float, float, str]], taken: Sequence[Box]) -> list[Box | None]:
    """A box for each (x, y, name) in px: the nearest free place in the frame, None for no place.

    `taken` holds what no name may cover: points and their whiskers.
    """
    boxes: list[Box | None] = []
    filled = list(taken)
    for x, y, name in anchors:
        width = text_width(name, bold=True)
        free = (box for box in _places(x, y, width) if not any(map(box.meets, filled)))
        box = next(free, None)
        boxes.append(box)
        filled += [box] if box else []
    return boxes


def _places(x: float, y: float, width: float) -> list[Box]:
    """Places within the frame, the nearest first; right and left of the point before all."""
    beside = [(x + _GAP, y - _LINE / 2), (x - _GAP - width, y - _LINE / 2)]
    columns = [x + _GAP, x - _GAP - width, x - width / 2, *range(LEFT, WIDTH, 12)]
    rows = range(TOP, HEIGHT - BOTTOM, 4)
    grid = [(column, row) for column in columns for row in rows]
    grid.sort(key=lambda at: _distance(at, (x, y), width))
    right, bottom = WIDTH - RIGHT / 2, HEIGHT - BOTTOM - 1.0
    return [
        Box(round(left, 1), round(top, 1), width, _LINE)
        for left, top in [*beside, *grid]
        if left >= LEFT and left + width <= right and top >= TOP - 4 and top + _LINE <= bottom
    ]


def _distance(at: tuple[float, float], point: tuple[float, float], width: float) -> float:
    """Squared, from the point to the nearest of the place."""
    across = max(at[0] - point[0], point[0] - at[0] - width, 0.0)
    down = max(at[1] - point[1], point[1] - at[1] - _LINE, 0.0)
    return across**2 + 2 * down**2
