"""Training rows that hold a held-out question: a benchmark's, or one of the run's own.

Questions are compared by the hashes of their word 8-grams (`fingerprints.word_grams`). The grams
of n rows come as one array and offsets: row i has `grams[offsets[i]:offsets[i + 1]]`.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.work.fingerprints import question_key, word_grams

COMMON = 10
"""A gram in more rows than this is a common phrase (Brown et al. 2020, appendix C)."""

SHARE = 0.7
"""Of a held-out question's grams: as much of it in one row gives it away. PaLM takes the same
share of the same grams (Chowdhery et al. 2022, section 8)."""

_TABLE_BITS = 26
"""64 MiB."""

Grams = NDArray[np.uint64]
Offsets = NDArray[np.integer[Any]]


class BenchmarkGuard:
    """Finds the rows that share a gram with a benchmark's questions, or are one of them.

    The strict rule of open-r1 (scripts/decontaminate.py): one shared gram is enough. A question
    of fewer words than a gram is found by equality alone. Memory: at most 24 bytes a gram.
    """

    def __init__(self, questions: Iterable[str]) -> None:
        texts = list(questions)
        self._keys = _Hashes(np.array([question_key(text) for text in texts], np.uint64))
        none = np.empty(0, np.uint64)
        self._grams = _Hashes(np.concatenate([none, *map(word_grams, texts)]))

    def hits(self, keys: NDArray[np.uint64], grams: Grams, offsets: Offsets) -> NDArray[np.bool_]:
        """True for every row, [n], that must not be trained on; `keys` are question keys, [n]."""
        hit = np.zeros(len(keys), np.bool_)
        hit[self._keys.find(keys)[0]] = True
        hit[_rows_of(self._grams.find(grams)[0], offsets)] = True
        return hit


class HeldOutGuard:
    """Finds the rows that hold most of one held-out question of the same run.

    Rows of one dataset share their phrases, so that one common gram tells nothing: a row is a hit
    where it has SHARE of those grams of one question that are not common phrases. A question
    that has none, or of fewer words, is left to `duplicates.decide`.
    `count` all rows of the run, then ask for `hits`. Memory: at most 44 bytes a gram of the
    held-out questions, which are some in a hundred.
    """

    def __init__(self, grams: Grams, offsets: Offsets, splits: NDArray[np.integer[Any]]) -> None:
        """The held-out rows, each question once; their splits, [n], are EVAL or TEST."""
        owners = np.repeat(np.arange(len(splits), dtype=np.int32), np.diff(offsets))
        by_gram = np.argsort(grams, kind="stable")
        ordered = grams[by_gram]
        self._grams = _Hashes(ordered)
        self._starts = np.append(np.searchsorted(ordered, self._grams.values), len(ordered))
        self._owners, self._splits = owners[by_gram], np.asarray(splits)
        self._rows = np.zeros(len(self._grams.values), np.int32)
        self._needed: NDArray[np.int64] | None = None

    @property
    def common(self) -> int:
        """How many different grams of the held-out questions are common phrases, so far."""
        return int(np.count_nonzero(self._rows > COMMON))

    def count(self, grams: Grams, offsets: Offsets, rows: NDArray[np.bool_] | None = None) -> None:
        """Count the rows that have each gram; with `rows`, [n], only those where it is True.

        Leave out rows that repeat a question, or one with many replies would look common.
        """
        at, place = self._grams.find(grams)
        if rows is not None:
            place = place[rows[_rows_of(at, offsets)]]
        np.add.at(self._rows, place, 1)
        self._needed = None

    def hits(
        self, grams: Grams, offsets: Offsets, splits: NDArray[np.integer[Any]]
    ) -> NDArray[np.bool_]:
        """True for every row, [n], with a question whose split is held out from the row's."""
        if self._needed is None:
            self._needed = self._grams_needed()
        at, place = self._grams.find(grams)
        rare = self._rows[place] <= COMMON
        rows, owners = self._shared(_rows_of(at[rare], offsets), place[rare])
        guarded = self._splits[owners] > splits[rows]
        pairs, shared = np.unique(
            rows[guarded] * len(self._splits) + owners[guarded], return_counts=True
        )
        row, owner = np.divmod(pairs, len(self._splits))
        hit = np.zeros(len(splits), np.bool_)
        hit[row[shared >= self._needed[owner]]] = True
        return hit

    def _grams_needed(self) -> NDArray[np.int64]:
        """Of every held-out question, how many of its grams give it away."""
        rare = np.repeat(self._rows <= COMMON, np.diff(self._starts))
        grams = np.bincount(self._owners[rare], minlength=len(self._splits))
        needed: NDArray[np.int64] = np.ceil(grams * SHARE - 1e-9).astype(np.int64)
        return needed

    def _shared(
        self, rows: NDArray[np.int64], place: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Every row once for each question that has its gram, and those questions."""
        counts = self._starts[place + 1] - self._starts[place]
        before = np.cumsum(counts) - counts
        within = np.arange(counts.sum()) - np.repeat(before, counts)
        return np.repeat(rows, counts), self._owners[
            np.repeat(self._starts[place], counts) + within
        ]


class _Hashes:
    """A set of hashes, uint64, uniform in their high bits."""

    def __init__(self, values: NDArray[np.uint64]) -> None:
        self.values = np.unique(values)
        """Ascending."""
        bits = min(len(self.values).bit_length() + 3, _TABLE_BITS)
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, np.bool_)
        self._table[self.values >> self._shift] = True

    def find(self, wanted: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices into `wanted` of those in the set, and where in `values` each is."""
        # nine in ten of the others end here: with 2 million values, ten times as fast
        at = np.flatnonzero(self._table[wanted >> self._shift])
        place = np.searchsorted(self.values, wanted[at])
        place[place == len(self.values)] = 0
        there = self.values[place] == wanted[at]
        return at[there], place[there]


def _rows_of(at: NDArray[np.int64], offsets: Offsets) -> NDArray[np.int64]:
    """The row that each index into the grams belongs to."""
    return np.searchsorted(offsets, at, side="right") - 1
