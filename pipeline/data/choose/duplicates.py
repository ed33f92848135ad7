"""Rows that repeat an earlier one: the same, the same question, or nearly the same question.

Near-duplicates are found by locality-sensitive hashing of MinHash signatures (Leskovec, Rajaraman
and Ullman, Mining of Massive Datasets, 3.4), in arrays and band by band. datasketch's MinHashLSH
holds the same 16 bands in dictionaries: 5,500 bytes a row, measured at 20,000 rows. Measured
here, `decide` at its peak: 155 bytes a row at 10,000 rows and 112 at 200,000, a fifth of them
repeats (170 where all share one phrase), and 512 on disk for a signature. 200,000 rows take 0.6 s,
7 s where all share a phrase that is half of each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.work.fingerprints import PERMUTATIONS, multipliers
from pipeline.recipe import Dedupe

Reason = Literal["", "duplicate_row", "duplicate_question", "near_duplicate", "contaminated"]
REASONS: tuple[Reason, ...] = (
    "",
    "duplicate_row",
    "duplicate_question",
    "near_duplicate",
    "contaminated",
)
"""What a code of `decide` means; 0 keeps the row."""

TRAIN, EVAL, TEST = range(3)
"""Splits, as indices into SPLITS: the higher is held out from the lower."""

GENERAL = -1
"""What general rows are in a comparison: they give way to every other."""

_CONTAMINATED = REASONS.index("contaminated")

_STEEP, _FLAT = 8, 4
"""Rows of a band. 128 / 8 = 16 bands of 8 find a pair of similarity 0.85 with 99.4 %, one of 0.8
with 94.7 %; 32 bands of 4 one of 0.6 with 98.8 %, at more candidates: 1 - (1 - s^rows)^bands."""

_STEEP_FROM = 0.8

_NEIGHBOURS = 4
"""Rows before it, and rows at the beginning, that a row of a bucket is compared with: a bucket
full of one phrase costs time in proportion to its rows, not to their pairs."""

_BANDS_AT_ONCE = 2
_ROWS_AT_ONCE = 1 << 12
_PAIRS_AT_ONCE = 1 << 13


class Decisions(NamedTuple):
    """What becomes of every row."""

    codes: NDArray[np.uint8]
    """[n], indices into REASONS."""
    of: NDArray[np.int64]
    """[n], the earlier row that each repeats, -1 where it repeats none."""


@dataclass(frozen=True)
class Rows:
    """What is known of n rows, in the order of their sources; the earlier row is the one kept."""

    row_keys: NDArray[np.uint64]
    question_keys: NDArray[np.uint64]
    splits: NDArray[np.integer[Any]]
    """GENERAL, TRAIN, EVAL or TEST."""
    protected: NDArray[np.bool_]
    """Rows of a test file, which are never dropped."""
    signatures: NDArray[np.uint32] | None = None
    """[n, 128], may be a memory map; needed where Dedupe.questions is `near`."""

    def order(self) -> NDArray[np.int64]:
        """Ranks: protected rows, then test, eval, train and general rows, in their own order."""
        by_rank = np.lexsort((-self.splits.astype(np.int8), ~self.protected))
        ranks = np.empty(len(by_rank), np.int64)
        ranks[by_rank] = np.arange(len(by_rank))
        return ranks


def decide(rows: Rows, dedupe: Dedupe) -> Decisions:
    """Which rows to drop, each with its reason and the row that it repeats.

    A row that repeats one of a split held out from its own is `contaminated`, whatever
    `dedupe.questions`; else `keep` drops equal rows, `exact` equal questions too, and `near`
    also near-duplicates. Raises ValueError where `near` is asked for without signatures.
    """
    order = rows.order()
    made = Decisions(np.zeros(len(order), np.uint8), np.full(len(order), -1, np.int64))
    _settle(made, rows, "duplicate_row", first_equal(rows.row_keys, order))
    asked = first_equal(rows.question_keys, order)
    _settle(made, rows, "duplicate_question", asked, only_leaks=dedupe.questions == "keep")
    if dedupe.questions == "near":
        if rows.signatures is None:
            raise ValueError("near-duplicates are found by signatures, and there are none")
        similar = earlier_similar(rows.signatures, order, dedupe.similarity)
        _settle(made, rows, "near_duplicate", similar)
    return made


def first_equal(
    keys: NDArray[np.uint64], order: NDArray[np.integer[Any]] | None
) -> NDArray[np.int64]:
    """Of every row the first row with its key, -1 where it is that itself: int64 [n].

    `order` holds the rows' ranks, [n], the lowest the earliest; None is the order they stand in.
    """
    by_rank = _by_rank(order, len(keys))
    place, start = _buckets(keys[by_rank])
    first = np.full(len(keys), -1, np.int64)
    later = np.flatnonzero(start < np.arange(len(start)))
    first[by_rank[place[later]]] = by_rank[place[start[later]]]
    return first


def earlier_similar(
    signatures: NDArray[np.uint32], order: NDArray[np.integer[Any]] | None, similarity: float
) -> NDArray[np.int64]:
    """Of every row the earliest row found similar to it, -1 where there is none: int64 [n].

    `signatures` is [n, 128], C-ordered, and may be a memory map: it is read from beginning to
    end eight times (sixteen below 0.8), and where two rows meet in a bucket. `order` is as in
    `first_equal`. Similar means an estimated Jaccard similarity of at least `similarity`. A row
    may repeat one that is itself dropped: of a chain of such rows the first alone is left.
    """
    by_rank = _by_rank(order, len(signatures))
    enough = np.ceil(similarity * PERMUTATIONS - 1e-9)
    found = np.full(len(signatures), len(signatures), np.int64)
    for keys in _band_keys(signatures, _STEEP if similarity >= _STEEP_FROM else _FLAT):
        for earlier, later in _pairs(keys[by_rank]):
            better = np.flatnonzero(earlier < found[later])
            for some in np.array_split(better, len(better) // _PAIRS_AT_ONCE + 1):
                left, right = earlier[some], later[some]
                same = signatures[by_rank[left]] == signatures[by_rank[right]]
                similar = np.count_nonzero(same, axis=1) >= enough
                found[right[similar]] = left[similar]
    earliest = np.full(len(found), -1, np.int64)
    later = np.flatnonzero(found < len(found))
    earliest[by_rank[later]] = by_rank[found[later]]
    return earliest


def _settle(
    made: Decisions,
    rows: Rows,
    reason: Reason,
    earlier: NDArray[np.int64],
    only_leaks: bool = False,
) -> None:
    """Drop the rows that have an `earlier` one, but for those dropped before and protected."""
    later = np.flatnonzero((earlier >= 0) & (made.codes == 0) & ~rows.protected)
    leaks = rows.splits[earlier[later]] > rows.splits[later]
    if only_leaks:
        later, leaks = later[leaks], leaks[leaks]
    made.codes[later] = np.where(leaks, _CONTAMINATED, REASONS.index(reason))
    made.of[later] = earlier[later]


def _by_rank(order: NDArray[np.integer[Any]] | None, n: int) -> NDArray[np.int64]:
    """The rows, the earliest first."""
    return np.arange(n) if order is None else np.argsort(order, kind="stable")


def _buckets(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions sorted by key, equal keys in their order, and where each one's bucket starts."""
    place = np.argsort(keys, kind="stable")
    ordered = keys[place]
    start = np.arange(len(keys))
    start[1:][ordered[1:] == ordered[:-1]] = 0
    return place, np.maximum.accumulate(start, out=start)


def _band_keys(signatures: NDArray[np.uint32], rows: int) -> Iterator[NDArray[np.uint64]]:
    """A key of every row for each band of `rows` numbers of its signature, uint64 [n]."""
    weights = multipliers(rows // 2)
    width = _BANDS_AT_ONCE * rows
    keys = np.empty((_BANDS_AT_ONCE, len(signatures)), np.uint64)
    for left in range(0, PERMUTATIONS, width):
        keys[:] = 0
        for top in range(0, len(signatures), _ROWS_AT_ONCE):
            block = np.ascontiguousarray(signatures[top : top + _ROWS_AT_ONCE, left : left + width])
            pairs = block.view(np.uint64).reshape(len(block), _BANDS_AT_ONCE, -1)
            for column, weight in enumerate(weights):
                keys[:, top : top + len(block)] += (pairs[:, :, column] * weight).T
        yield from keys


def _pairs(keys: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions (earlier, later) with one key: with the bucket's first rows, and neighbours.

    Every pair of arrays names a later position once.
    """
    place, start = _buckets(keys)
    at = np.flatnonzero(start < np.arange(len(start)))
    start = start[at]
    for step in range(_NEIGHBOURS):
        kept = start + step < at
        yield place[start[kept] + step], place[at[kept]]
    for step in range(1, _NEIGHBOURS + 1):
        kept = at - step >= start + _NEIGHBOURS
        yield place[at[kept] - step], place[at[kept]]
