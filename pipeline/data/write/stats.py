"""stats.json: how many rows, how long, what was dropped and why, by source and in all."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.data.choose.selection import Selection
from pipeline.data.work.gather import Gathered
from pipeline.data.work.parts import Tally
from pipeline.data.work.worker import SPLITS

LIMITS = (2048, 4096, 8192, 16384)
"""Tokens: the context lengths people choose among."""

EDGES = (0, 64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768)
"""Tokens: where a histogram's bins begin; the last one has no end."""

_PERCENTILES = (5, 25, 50, 75, 90, 95, 99)


def statistics(
    sources: list[Gathered], selection: Selection, supervised: Mapping[str, int]
) -> dict[str, Any]:
    """Counts, rejects by reason, token lengths of the examples, supervised tokens.

    `tokens` are those of the rows kept; `lengths` count every well-formed row, those too long
    among them.
    """
    rejects = sum((selection.rejects(each) for each in sources), Counter())
    tallies = sum((each.tally for each in sources), Tally())
    return {
        "rows": counts(sources, selection),
        "rejects": dict(rejects),
        "sources": [_source(each, selection) for each in sources],
        "tokens": {split: spread(selection.lengths(split)) for split in SPLITS},
        "supervised_tokens": dict(supervised),
        "lengths": _lengths(selection.came, tallies),
        "decontamination": dict(selection.figures),
    }


def counts(sources: list[Gathered], selection: Selection) -> dict[str, int]:
    """Rows by split, and rejects."""
    rejected = sum(selection.rejects(each).total() for each in sources)
    return {split: len(selection.lengths(split)) for split in SPLITS} | {"rejects": rejected}


def spread(lengths: "np.ndarray[Any, Any]") -> dict[str, int] | None:
    """Sum, extremes and nearest-rank percentiles; None of nothing."""
    if not len(lengths):
        return None
    ordered = np.sort(lengths)
    last = len(ordered) - 1
    found = {f"p{p}": int(ordered[round(last * p / 100)]) for p in _PERCENTILES}
    ends = {"sum": int(ordered.sum(dtype="int64")), "min": int(ordered[0])}
    return {**ends, **found, "max": int(ordered[-1])}


def _source(each: Gathered, selection: Selection) -> dict[str, Any]:
    number = each.task.number
    return {
        "dataset": each.opened.source.dataset,
        "records": each.tally.records,
        "rows": selection.kept(number),
        "left_out": selection.left_out(number),
        "cut": selection.cut(number),
        "rejects": dict(selection.rejects(each)),
        "tokens": spread(selection.lengths_of(number)),
        "lengths": _lengths(selection.came_of(number), each.tally),
    }


def _lengths(came: "np.ndarray[Any, Any]", tally: Tally) -> dict[str, Any]:
    """Histogram of all well-formed rows as they came, and the share beyond each limit."""
    lengths = np.concatenate([came, np.array(tally.too_long, "int32")])
    rows = max(1, len(lengths))
    over = {str(limit): round(float((lengths > limit).sum()) / rows, 4) for limit in LIMITS}
    bins = np.searchsorted(EDGES, lengths, side="right") - 1
    return {
        "edges": list(EDGES),
        "rows": np.bincount(bins, minlength=len(EDGES)).tolist(),
        "longer_than": over,
    }
