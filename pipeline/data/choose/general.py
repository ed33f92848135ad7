"""General rows: some are held apart, others go among the training rows against forgetting."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.choose.duplicates import EVAL, REASONS, TRAIN, first_equal
from pipeline.data.choose.grams import grams_of, guard_of
from pipeline.data.choose.mixture import chosen
from pipeline.data.choose.selection import KEPT, LEFT_OUT, Codes

APART = 64
"""Rows whose loss is measured before and after training, never trained on: some seconds on a GPU.
They come first; only what a source has beyond them can be mixed in."""


@dataclass(frozen=True)
class General:
    """The rows of the general source, [n], as the workers kept them."""

    parts: Sequence[Path]
    question_keys: NDArray[np.uint64]
    draws: NDArray[np.uint64]


def rows_for(trained: int, share: float) -> int:
    """General rows to put among `trained` others, so that they are that share of them all."""
    # as written in the recipe: 0.2 is a fifth there, though not in binary
    exact = Fraction(str(share))
    return round(trained * exact / (1 - exact))


def draw_general(general: General, codes: Codes, take: int) -> NDArray[np.int64]:
    """Which rows to train on, at most `take`; the others kept are those held apart.

    `codes`, [n], is filled in: what repeats a row held apart is contaminated, what is not needed
    left out. Both draws take the smallest, so more rows of a source hold the fewer.
    """
    kept = np.flatnonzero(codes == KEPT)
    asked_once = kept[first_equal(general.question_keys[kept], None) < 0]
    apart = asked_once[_smallest(general, asked_once, APART)]
    others = np.setdiff1d(kept, apart)
    if not take:
        codes[others] = LEFT_OUT
        return others[:0]
    repeats = others[_repeating(general, apart, others)]
    codes[repeats] = REASONS.index("contaminated")
    others = np.setdiff1d(others, repeats)
    taken = others[_smallest(general, others, take)]
    codes[np.setdiff1d(others, taken)] = LEFT_OUT
    return taken


def _smallest(general: General, rows: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    return chosen(general.draws[rows], min(most, len(rows)))


def _repeating(
    general: General, apart: NDArray[np.int64], others: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """True for each of `others` that asks, or holds most of, a question held apart."""
    keys = general.question_keys
    held, known = np.zeros((2, len(keys)), np.bool_)
    held[apart] = known[apart] = known[others] = True
    splits = np.where(held, EVAL, TRAIN).astype(np.int8)
    guard = guard_of(general.parts, held, splits, known)
    found = np.isin(keys, keys[apart])
    for place, grams, offsets in grams_of(general.parts):
        found[place] |= guard.hits(grams, offsets, splits[place])
    repeating: NDArray[np.bool_] = found[others]
    return repeating
