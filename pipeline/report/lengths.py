"""data.svg: how long the rows are, and what became of every record of every source."""

import json
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

from pipeline.report.histogram import Bins, bins_of
from pipeline.report.words import tokens
from pipeline.run import Run
from pipeline.run.files import write_text

_KEPT, _DROPPED = "#3b6fd4", "#b9bec9"
_COLOURS = ("#d1495b", "#edae49", "#8d6cab", "#66a182", "#2e4057", "#c97b4a", "#7a9e9f", "#9c3848")
_TICKS = 15
"""At most, below the lengths."""
_NAMED = len(_COLOURS)
"""Reasons with a colour of their own; the rest are taken together."""


def picture_of_data(run: Run) -> Path:
    """Where `draw_data` leaves it."""
    return run.root / "data.svg"


def draw_data(run: Run) -> Path:
    """Draw the statistics of the run's data and return the picture's path.

    Equal statistics give equal bytes.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    run.require("data")
    stats = json.loads((run.folder("data") / "stats.json").read_text(encoding="utf-8"))
    style = {"svg.hashsalt": "pipe", "svg.fonttype": "none", "font.size": 9}
    with rc_context(style):
        height = 2.6 + 0.45 * len(stats["sources"])
        figure = Figure(figsize=(9, height), layout="constrained")
        lengths, fates = figure.subplots(
            2, 1, height_ratios=(2.2, 0.5 + 0.45 * len(stats["sources"]))
        )
        _draw_lengths(lengths, bins_of(run, stats), stats)
        _draw_fates(fates, stats["sources"])
        text = StringIO()
        figure.savefig(
            text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    path = picture_of_data(run)
    write_text(path, text.getvalue())
    return path


def _draw_lengths(axes: Any, bins: Bins, stats: dict[str, Any]) -> None:
    """A histogram, with the share of all well-formed rows beyond each context length."""
    axes.bar(range(len(bins.rows)), bins.rows, width=0.95, align="edge", color=_KEPT)
    every = -(-len(bins.edges) // _TICKS)
    axes.set_xticks(
        range(0, len(bins.edges), every), [tokens(edge) for edge in bins.edges[::every]]
    )
    axes.set_ylabel("rows")
    axes.set_xlabel(f"tokens, {bins.of}")
    axes.set_title("\n".join(_told(stats)), loc="left", fontsize=9)
    _bare(axes)


def _told(stats: dict[str, Any]) -> list[str]:
    """The share of rows beyond each context length, and the training rows' percentiles."""
    beyond = sorted((int(limit), share) for limit, share in stats["lengths"]["longer_than"].items())
    some = [f"{share:.1%} over {tokens(limit)}" for limit, share in beyond if share]
    shares = ", ".join(some) or f"none over {tokens(beyond[0][0])}"
    lines = [f"tokens of a row, as it came: {shares}"]
    if train := stats["tokens"]["train"]:
        names = ("p5", "p25", "p50", "p75", "p90", "p95", "p99", "max")
        lines.append("training rows: " + ", ".join(f"{name} {train[name]:,}" for name in names))
    return lines


def _draw_fates(axes: Any, sources: list[dict[str, Any]]) -> None:
    """One bar a source: rows kept, then those dropped, by reason."""
    reasons: Counter[str] = Counter()
    for source in sources:
        reasons.update(source["rejects"])
    named = [reason for reason, _ in reasons.most_common(_NAMED)]
    rows = [("kept", _KEPT, [source["rows"] for source in sources])]
    rows += [
        (reason, colour, [source["rejects"].get(reason, 0) for source in sources])
        for reason, colour in zip(named, _COLOURS, strict=False)
    ]
    others = [
        sum(count for reason, count in source["rejects"].items() if reason not in named)
        for source in sources
    ]
    rows += [("other reasons", _DROPPED, others)] if any(others) else []
    left_out = [source["left_out"] for source in sources]
    rows += [("beyond its weight or share", "#e6e8ec", left_out)] if any(left_out) else []
    begun = [0] * len(sources)
    for label, colour, counts in rows:
        shown = f"{label.replace('_', ' ')} {sum(counts):,}"
        axes.barh(range(len(sources)), counts, left=begun, color=colour, label=shown, height=0.7)
        begun = [start + count for start, count in zip(begun, counts, strict=True)]
    axes.set_yticks(range(len(sources)), [_short(source) for source in sources])
    axes.invert_yaxis()
    axes.set_xlabel("records")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    _bare(axes)


def _bare(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _short(source: dict[str, Any]) -> str:
    name = " ".join(part for part in (source["dataset"], source["config"]) if part)
    return name if len(name) <= 28 else f"…{name[-27:]}"
