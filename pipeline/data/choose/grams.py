"""The grams of all rows, read from the parts as they are needed: too many for memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.choose.contamination import HeldOutGuard
from pipeline.data.work.parts import OpenPart


def grams_of(
    parts: Sequence[Path],
) -> Iterator[tuple[slice, NDArray[np.uint64], NDArray[np.int32]]]:
    """Part by part: which rows these are, their grams and offsets."""
    begun = 0
    for path in parts:
        with OpenPart(path) as part:
            grams, offsets = part.lists("grams", "uint64")
            yield slice(begun, begun + len(part)), grams, offsets
            begun += len(part)


def guard_of(
    parts: Sequence[Path],
    held: NDArray[np.bool_],
    splits: NDArray[np.integer[Any]],
    counted: NDArray[np.bool_],
) -> HeldOutGuard:
    """A guard of the rows that are `held`, [n], in their `splits`, [n].

    `counted`, [n], are the rows by which it knows common phrases: each question once.
    """
    found, lengths = [np.empty(0, np.uint64)], []
    for place, grams, offsets in grams_of(parts):
        for row in np.flatnonzero(held[place]):
            found.append(grams[offsets[row] : offsets[row + 1]].copy())
            lengths.append(len(found[-1]))
    bounds = np.cumsum([0, *lengths], dtype="int64")
    guard = HeldOutGuard(np.concatenate(found), bounds, splits[held].astype(np.int8))
    for place, grams, offsets in grams_of(parts):
        guard.count(grams, offsets, counted[place])
    return guard
