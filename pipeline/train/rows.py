"""The encoded rows as TRL takes them: ids and labels, packed where that was asked."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.train.job import Job
from pipeline.train.order import Order, bins_of, order_of

IGNORE = -100
"""The label of a token that is not learned (torch's ignore_index)."""


def labelled(path: str | Path) -> Any:
    """A datasets.Dataset with `input_ids` and `labels`, lists of int32 of the same length.

    Labels are the ids from a row's `target_start` on, and IGNORE before.
    """
    import pyarrow as pa
    from datasets import Dataset

    table = Dataset.from_file(str(path)).data.table.combine_chunks()
    ids = _one_chunk(table, "input_ids")
    values, offsets = _flat(ids)
    starts = _one_chunk(table, "target_start").to_numpy()
    places = np.arange(len(values)) - np.repeat(offsets[:-1], np.diff(offsets))
    labels = np.where(places < np.repeat(starts, np.diff(offsets)), IGNORE, values)
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(labels, pa.int32()))
    return Dataset(pa.table({"input_ids": ids, "labels": lists}))


def lengths_of(rows: Any) -> NDArray[np.int64]:
    """Tokens of each row, int64 [rows]."""
    _, offsets = _flat(_one_chunk(rows.data.table.combine_chunks(), "input_ids"))
    return np.diff(offsets).astype(np.int64)


def packed(rows: Any, bins: list[list[int]]) -> Any:
    """One row for each bin: its rows one after the other, their lengths in `seq_lengths`.

    TRL's collator makes positions of the lengths, Unsloth's attention keeps the rows apart.
    """
    import pyarrow as pa
    from datasets import Dataset

    lengths = lengths_of(rows)
    order = pa.array([row for each in bins for row in each])
    sizes = [[int(lengths[row]) for row in each] for each in bins]
    offsets = np.concatenate([[0], np.cumsum([sum(each) for each in sizes])])
    columns: dict[str, Any] = {}
    for name in ("input_ids", "labels"):
        taken = _one_chunk(rows.data.table.combine_chunks(), name).take(order)
        values, _ = _flat(taken)
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
    columns["seq_lengths"] = pa.array(sizes, pa.list_(pa.int32()))
    return Dataset(pa.table(columns))


def row_names(path: Path, rows: list[int]) -> list[str]:
    """The ids of rows of train.jsonl, by their line; its number where a row has none."""
    wanted, names = set(rows), {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number in wanted:
                names[number] = str(json.loads(line).get("id") or f"line {number + 1}")
    return [names.get(row, f"line {row + 1}") for row in rows]


def _one_chunk(table: Any, name: str) -> Any:
    column = table.column(name).combine_chunks()
    return column.chunk(0) if hasattr(column, "chunk") else column


def _flat(lists: Any) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The values of a list array and where each list begins in them, the end last."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    values = lists.values.to_numpy()[offsets[0] : offsets[-1]]
    return values, offsets - offsets[0]


@dataclass(frozen=True)
class Batches:
    """What is trained on, and in which order."""

    dataset: Any
    order: Order
    lengths: NDArray[np.int64]
    """Tokens of each row of `dataset`, int64 [rows]."""
    bins: list[list[int]] | None
    """The rows of train.jsonl in each row of `dataset`, where they are packed."""

    def rows_of(self, step: int) -> list[int]:
        """The lines of train.jsonl that an optimizer step learns from, counted from 0."""
        taken = self.order.rows_of(step)
        return taken if self.bins is None else [row for each in taken for row in self.bins[each]]

    def epoch(self, step: int) -> float:
        """Passes over the rows after a step."""
        return float(step * self.order.steps.shape[1] / len(self.lengths))


def batches_of(job: Job) -> Batches:
    """The rows as the job wants them batched."""
    train = job.train
    rows = labelled(job.encoded["train"])
    lengths = lengths_of(rows)
    bins = bins_of(lengths, job.max_seq_length) if train.batching == "packed" else None
    if bins is not None:
        lengths = np.array([lengths[each].sum() for each in bins])
        rows = packed(rows, bins)
    order = order_of(
        lengths,
        job.global_batch,
        epochs=train.epochs,
        max_steps=train.max_steps,
        seed=job.seed,
        grouped=train.batching == "grouped",
    )
    return Batches(rows, order, lengths, bins)
