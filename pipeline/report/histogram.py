"""How long the rows are: in the bins of stats.json, or in finer ones where those show no shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.run import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FEW = 5
"""Bins with rows in them: fewer are no shape."""
_BINS = 24
"""At most, of the finer ones."""


@dataclass(frozen=True)
class Bins:
    """rows[i] have more than edges[i] tokens and at most edges[i + 1]; the last has no end."""

    edges: tuple[int, ...]
    rows: tuple[int, ...]
    of: str
    """Which rows are counted."""


def bins_of(run: Run, stats: Mapping[str, Any]) -> Bins:
    """The bins of all well-formed rows; where these are few, finer ones of the training rows."""
    edges, rows = tuple(stats["lengths"]["edges"]), tuple(stats["lengths"]["rows"])
    found = Bins(edges, rows, "as they came, before any was dropped")
    if sum(map(bool, rows)) >= _FEW:
        return found
    return finer(_training_lengths(run)) or found


def finer(counts: Mapping[int, int]) -> Bins | None:
    """Equal bins over the lengths that there are, their width a round number; None for too few."""
    if len(counts) < _FEW:
        return None
    low, high = min(counts), max(counts)
    width = _round_up((high - low) / (_BINS - 2))
    start = width * ((low - 1) // width)
    edges = tuple(range(start, high + width, width))
    rows = [0] * len(edges)
    for length, count in counts.items():
        rows[(length - 1 - start) // width] += count
    return Bins(edges, tuple(rows), "of the rows to train on")


def _round_up(width: float) -> int:
    """To 1, 2 or 5 times a power of ten."""
    power = int(10 ** floor(log10(max(1.0, width))))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= width)


def _training_lengths(run: Run) -> dict[int, int]:
    """Tokens of a row -> how many rows; empty where the encoded rows are not there."""
    path = run.folder("data") / "encoded" / "train.arrow"
    if not path.is_file():
        return {}
    import numpy as np

    lengths, rows = np.unique(row_lengths(path), return_counts=True)
    return dict(zip(lengths.tolist(), rows.tolist(), strict=True))


def row_lengths(path: Path) -> NDArray[np.int64]:
    """Tokens of each row of an Arrow stream of rows, int64 [rows]."""
    import numpy as np
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        chunks = pa.ipc.open_stream(file).read_all().column("input_ids").chunks
        # pyarrow's own way to numpy imports pandas, its compute functions take as long to load
        each = [np.diff(np.from_dlpack(chunk.offsets)) for chunk in chunks]
    return np.concatenate([np.empty(0), *each]).astype(np.int64)
