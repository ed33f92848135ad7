"""Which rows each optimizer step takes: known for the whole training before it begins.

A step's rows depend on the seed and the global batch alone, not on how many processes share it or
how it is cut into micro-batches: so a training goes on from any step as if it had never stopped.
"""

import heapq
import math
from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

WINDOW = 50
"""Steps whose rows are sorted together where batches are grouped by length; Trainer's own number
(get_length_grouped_indices), so that steps stay shuffled."""


@dataclass(frozen=True)
class Order:
    """The rows of all steps, [steps, rows a step] int64."""

    steps: Rows

    def rows_of(self, step: int) -> list[int]:
        """The rows of an optimizer step, counted from 1."""
        return [int(row) for row in self.steps[step - 1]]

    def flat(self) -> list[int]:
        return [int(row) for row in self.steps.ravel()]

    def tokens(self, lengths: Rows) -> Rows:
        """Tokens seen after each step, padding not counted; int64 [steps]."""
        return np.cumsum(lengths[self.steps].sum(axis=1))


def order_of(
    lengths: Rows,
    global_batch: int,
    *,
    epochs: float,
    max_steps: int | None,
    seed: int,
    grouped: bool,
) -> Order:
    """Shuffled rows for every step; each row once an epoch.

    `lengths` are the rows' tokens, int64 [rows]. An epoch does not end with a smaller step: the
    next one's rows fill it up, so a training sees up to global_batch - 1 rows once more.
    """
    count = len(lengths)
    steps = max_steps or max(1, math.ceil(round(epochs * count / global_batch, 9)))
    needed = steps * global_batch
    draw = np.random.default_rng(seed)
    passes = [draw.permutation(count) for _ in range(math.ceil(needed / count))]
    rows = np.concatenate(passes)[:needed]
    return Order(
        (_grouped(rows, lengths, global_batch, draw) if grouped else rows).reshape(steps, -1)
    )


def _grouped(rows: Rows, lengths: Rows, batch: int, draw: np.random.Generator) -> Rows:
    """Within windows of steps, rows of like length share a step; the steps stay shuffled."""
    parts = []
    for start in range(0, len(rows), WINDOW * batch):
        window = rows[start : start + WINDOW * batch]
        window = window[np.argsort(-lengths[window], kind="stable")].reshape(-1, batch)
        parts.append(window[draw.permutation(len(window))])
    steps = np.concatenate(parts)
    # what needs the most memory comes first, as in Trainer: if it does not fit, it is known at once
    longest = int(np.argmax(lengths[steps].max(axis=1)))
    steps[[0, longest]] = steps[[longest, 0]]
    return steps.ravel()


def bins_of(lengths: Rows, capacity: int) -> list[list[int]]:
    """Rows packed into bins of at most `capacity` tokens: longest first, each where it fits best.

    Each row is in one bin; a row longer than `capacity` has its own.
    """
    bins: list[list[int]] = []
    room: dict[int, list[int]] = {}  # free tokens -> bins with so many, the oldest first
    levels: list[int] = []  # the keys of `room`, sorted
    for row in (int(r) for r in np.argsort(-lengths, kind="stable")):
        size = int(lengths[row])
        at = bisect_left(levels, size)
        if at == len(levels):
            bins.append([row])
            place, left = len(bins) - 1, capacity - size
        else:
            level = levels[at]
            place, left = heapq.heappop(room[level]), level - size
            bins[place].append(row)
            if not room[level]:
                del room[level], levels[at]
        if left > 0:
            if left not in room:
                insort(levels, left)
            heapq.heappush(room.setdefault(left, []), place)
    return bins
