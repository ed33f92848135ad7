"""stats.json: how many rows, how long, what was dropped and why, by source and in all."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.data.choose.selection import Selection
from pipeline.data.work.gather import Gathered
from pipeline.data.work.parts import EDGES, Tally
from pipeline.data.work.worker import SPLITS
from pipeline.data.write.writer import ENCODED

LIMITS = (2048, 4096, 8192, 16384)
"""Tokens: the context lengths people choose among."""

_LEARNED = tuple(split for split in SPLITS if split != "general")
"""General rows held apart are encoded otherwise than a row that is learned."""

_PERCENTILES = (5, 25, 50, 75, 90, 95, 99)


def statistics(
    sources: list[Gathered], selection: Selection, supervised: Mapping[str, int]
) -> dict[str, Any]:
    """Counts, rejects by reason, token lengths of the examples, supervised tokens.

    `tokens` are those of the rows kept, as they would be trained. `lengths` count the rows that
    were encoded, before any was cut, and those too long; not those that a filter had dropped
    before.
    """
    rejects = sum((selection.rejects(each) for each in sources), Counter())
    tallies = sum((each.tally for each in sources), Tally())
    return {
        "rows": counts(sources, selection),
        "rejects": dict(rejects),
        "sources": [_source(each, selection) for each in sources],
        "tokens": {split: spread(selection.lengths(split)) for split in _LEARNED},
        "supervised_tokens": {split: supervised.get(split, 0) for split in ENCODED},
        "lengths": _lengths(selection.came_in(), tallies),
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
    ranks = {f"p{p}": -(-len(ordered) * p // 100) for p in _PERCENTILES}
    found = {name: int(ordered[rank - 1]) for name, rank in ranks.items()}
    ends = {"sum": int(ordered.sum(dtype="int64")), "min": int(ordered[0])}
    return {**ends, **found, "max": int(ordered[-1])}


def _source(each: Gathered, selection: Selection) -> dict[str, Any]:
    number = each.task.number
    return {
        "dataset": each.opened.source.dataset,
        "config": each.opened.facts().get("config"),
        "records": each.tally.records,
        "rows": selection.kept(number),
        "left_out": selection.left_out(number),
        "cut": selection.cut(number),
        "rejects": dict(selection.rejects(each)),
        "tokens": spread(selection.lengths_of(number)),
        "lengths": _lengths(selection.came_of(number), each.tally),
    }


def _lengths(came: "np.ndarray[Any, Any]", tally: Tally) -> dict[str, Any]:
    """Histogram of the rows as they came, those too long too, and the share beyond each limit."""
    bins = np.bincount(np.maximum(np.searchsorted(EDGES, came) - 1, 0), minlength=len(EDGES))
    for place, dropped in tally.too_long.items():
        bins[place] += dropped
    rows = max(1, int(bins.sum()))
    over = {limit: int(bins[EDGES.index(limit) :].sum()) / rows for limit in LIMITS}
    return {
        "edges": list(EDGES),
        "rows": bins.tolist(),
        "longer_than": {str(limit): round(share, 4) for limit, share in over.items()},
    }
