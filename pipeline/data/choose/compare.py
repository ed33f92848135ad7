"""Phase two: all rows against each other and against held-out questions; then the weights.

In memory it takes some 220 bytes a row at its peak (benchmarks/prepare_memory.json); the
signatures lie in a mapped file (512 bytes a row) and the grams stay in the parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.choose.contamination import BenchmarkGuard
from pipeline.data.choose.duplicates import (
    EVAL,
    GENERAL,
    REASONS,
    TRAIN,
    Rows,
    decide,
    first_equal,
)
from pipeline.data.choose.general import General, draw_general, rows_for
from pipeline.data.choose.grams import grams_of, guard_of
from pipeline.data.choose.mixture import chosen, drawn
from pipeline.data.choose.selection import KEPT, LEFT_OUT, Codes, Selection
from pipeline.data.work.fingerprints import PERMUTATIONS
from pipeline.data.work.gather import Gathered
from pipeline.data.work.parts import OpenPart
from pipeline.data.work.worker import SPLITS
from pipeline.recipe import Recipe
from pipeline.run.files import explained_writes

_CONTAMINATED = REASONS.index("contaminated")
_SIGNATURES = "signatures.u32"
_TRAINED = (GENERAL, TRAIN, EVAL)
"""What steers the training, or is measured beside it."""


@dataclass(frozen=True)
class _Columns:
    """Of every row of every source, [n]."""

    split: NDArray[np.int8]
    draw: NDArray[np.uint64]
    question_key: NDArray[np.uint64]
    row_key: NDArray[np.uint64]
    came: NDArray[np.int32]
    tokens: NDArray[np.int32]


def select(
    sources: Sequence[Gathered], recipe: Recipe, questions: Sequence[str], folder: Path
) -> Selection:
    """What becomes of every row.

    `questions` are the benchmarks'; the signatures are kept in `folder` meanwhile.
    """
    parts = [path for each in sources for path in each.parts]
    starts = np.cumsum([0, *(each.tally.rows for each in sources)], dtype="int64")
    columns = _read(parts, folder / _SIGNATURES)
    is_general = columns.split == SPLITS.index("general")
    rows = Rows(
        columns.row_key,
        columns.question_key,
        np.where(is_general, np.int8(GENERAL), columns.split),
        _protected(sources, starts),
        _signatures(folder / _SIGNATURES, len(columns.split)),
    )
    codes = decide(rows, recipe.data.dedupe).codes
    figures = _decontaminate(parts, rows, codes, questions)
    _weigh(sources, starts, columns.draw, codes)
    _draw_general(sources, starts, columns, codes, recipe.data.general_share)
    return Selection(
        starts=starts,
        split=columns.split,
        came=columns.came,
        tokens=columns.tokens,
        codes=codes,
        reasons={code: reason for code, reason in enumerate(REASONS) if reason},
        figures=figures,
    )


def _read(parts: Sequence[Path], signatures: Path) -> _Columns:
    """The columns of all parts; the signatures go to a file of their own."""
    kinds = {
        "split": "int8",
        "draw": "uint64",
        "question_key": "uint64",
        "row_key": "uint64",
        "came": "int32",
    }
    found: dict[str, list[NDArray[np.generic]]] = {name: [] for name in (*kinds, "tokens")}
    with explained_writes("data"), signatures.open("wb") as file:
        for path in parts:
            with OpenPart(path) as part:
                for name, kind in kinds.items():
                    found[name].append(part.numbers(name, kind).copy())
                _, offsets = part.lists("input_ids", "int32")
                found["tokens"].append(np.diff(offsets))
                part.signatures().tofile(file)
    kinds["tokens"] = "int32"
    return _Columns(
        **{name: np.concatenate([np.empty(0, kinds[name]), *found[name]]) for name in kinds}
    )


def _signatures(path: Path, rows: int) -> NDArray[np.uint32]:
    if not rows:
        return np.empty((0, PERMUTATIONS), "uint32")
    return np.memmap(path, "uint32", "r", shape=(rows, PERMUTATIONS))


def _protected(sources: Sequence[Gathered], starts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The rows of the test file, which are never dropped."""
    protected = np.zeros(int(starts[-1]), bool)
    for each in sources:
        if each.task.kind == "test":
            protected[starts[each.task.number] : starts[each.task.number + 1]] = True
    return protected


def _decontaminate(
    parts: Sequence[Path], rows: Rows, codes: Codes, questions: Sequence[str]
) -> dict[str, int]:
    """Mark the rows that hold a held-out question; the figures of it."""
    benchmarks = BenchmarkGuard(questions)
    # a question with many replies counts once, or it would look like a common phrase
    once = (codes == KEPT) & (first_equal(rows.question_keys, rows.order()) < 0)
    # what is dropped of the others must not depend on the general rows
    once &= rows.splits != GENERAL
    held_out = guard_of(parts, once & (rows.splits > TRAIN), rows.splits, once)
    hits = {"by_benchmarks": 0, "by_own_questions": 0}
    for place, grams, offsets in grams_of(parts):
        splits, here = rows.splits[place], codes[place]
        open_to = (here == KEPT) & ~rows.protected[place]
        by_benchmarks = benchmarks.hits(rows.question_keys[place], grams, offsets)
        for name, found in (
            ("by_benchmarks", by_benchmarks & np.isin(splits, _TRAINED)),
            ("by_own_questions", held_out.hits(grams, offsets, splits)),
        ):
            new = found & open_to & (here == KEPT)
            here[new] = _CONTAMINATED
            hits[name] += int(new.sum())
    return {
        "benchmark_questions": len(questions),
        "common_grams_passed_over": held_out.common,
        **hits,
    }


def _weigh(
    sources: Sequence[Gathered],
    starts: NDArray[np.int64],
    draws: NDArray[np.uint64],
    codes: Codes,
) -> None:
    """Leave out what a source has beyond its weight."""
    mixed = [each for each in sources if each.task.kind == "train"]
    weights = [each.opened.source.weight for each in mixed]
    if None in weights:
        return
    places = [slice(starts[each.task.number], starts[each.task.number + 1]) for each in mixed]
    kept = [np.flatnonzero(codes[place] == KEPT) for place in places]
    takes = drawn([len(rows) for rows in kept], [float(weight or 0) for weight in weights])
    for place, rows, take in zip(places, kept, takes, strict=True):
        codes[place][rows[~chosen(draws[place][rows], take)]] = LEFT_OUT


def _draw_general(
    sources: Sequence[Gathered],
    starts: NDArray[np.int64],
    columns: _Columns,
    codes: Codes,
    share: float,
) -> None:
    """Put general rows among the training rows, hold some apart, leave out the rest."""
    trained = int(((codes == KEPT) & (columns.split == TRAIN)).sum())
    for each in sources:
        if each.task.kind == "general":
            here = slice(starts[each.task.number], starts[each.task.number + 1])
            general = General(each.parts, columns.question_key[here], columns.draw[here])
            taken = draw_general(general, codes[here], rows_for(trained, share))
            columns.split[here][taken] = TRAIN
