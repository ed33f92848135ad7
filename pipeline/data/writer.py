"""The files of the data folder: rows by split, rejects, encoded examples, statistics."""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Literal, TextIO

from pipeline.chat import Encoded
from pipeline.data.rows import Reject, Row
from pipeline.run.rows import jsonl_line

Split = Literal["train", "eval", "test"]
SPLITS: tuple[Split, ...] = ("train", "eval", "test")
ENCODED: tuple[Split, ...] = ("train", "eval")
_BATCH = 1000


class ArrowWriter:
    """An Arrow IPC stream of `input_ids` (list of int32) and `target_start` (int32).

    `datasets.Dataset.from_file` reads it; equal examples give equal bytes.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow

        schema = pyarrow.schema(
            [
                ("input_ids", pyarrow.list_(pyarrow.int32())),
                ("target_start", pyarrow.int32()),
            ]
        )
        self._pyarrow = pyarrow
        self._stream = pyarrow.ipc.new_stream(str(path), schema)
        self._schema = schema
        self._waiting: list[Encoded] = []

    def add(self, example: Encoded) -> None:
        self._waiting.append(example)
        if len(self._waiting) == _BATCH:
            self._flush()

    def close(self) -> None:
        if self._waiting:
            self._flush()
        self._stream.close()

    def _flush(self) -> None:
        offsets = array("i", accumulate((len(e.ids) for e in self._waiting), initial=0))
        ids = array("i", chain.from_iterable(e.ids for e in self._waiting))
        starts = array("i", (e.target_start for e in self._waiting))
        lists = self._pyarrow.ListArray.from_arrays(self._int32(offsets), self._int32(ids))
        columns = [lists, self._int32(starts)]
        self._stream.write_batch(
            self._pyarrow.RecordBatch.from_arrays(columns, schema=self._schema)
        )
        self._waiting.clear()

    def _int32(self, values: "array[int]") -> Any:
        """From the buffer itself: pyarrow imports pandas to look at anything else."""
        buffer = self._pyarrow.py_buffer(values)
        return self._pyarrow.Array.from_buffers(self._pyarrow.int32(), len(values), [None, buffer])


@dataclass
class Tally:
    """What became of one source's records."""

    rows: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    """Reason -> where it was first met."""


class Writer:
    """Takes rows and rejects as they come, and counts them."""

    def __init__(self, texts: Mapping[str, TextIO], arrows: Mapping[Split, ArrowWriter]) -> None:
        self._texts = texts
        self._arrows = arrows
        self._lengths: dict[Split, array[int]] = {split: array("q") for split in SPLITS}
        self._tokens = 0
        self._supervised: Counter[str] = Counter()
        self._tallies: list[Tally] = []

    def begin_source(self) -> None:
        self._tallies.append(Tally())

    def add(self, row: Row, split: Split, example: Encoded, *, thinking: bool) -> None:
        """One row; `thinking` says whether its reasoning is in the encoded example."""
        trained = split in self._arrows
        record: dict[str, Any] = vars(row) | ({"thinking": thinking} if trained else {})
        self._texts[split].write(jsonl_line(record))
        if trained:
            self._arrows[split].add(example)
            self._supervised[split] += len(example.ids) - example.target_start
        self._lengths[split].append(len(example.ids))
        self._tokens += len(example.ids)
        self.present.rows += 1

    def reject(self, reject: Reject) -> None:
        self._texts["rejects"].write(jsonl_line(reject.as_dict()))
        self.present.rejects[reject.reason] += 1
        self.present.first.setdefault(reject.reason, reject.where)

    def rows(self, split: Split) -> int:
        return len(self._lengths[split])

    def reasons(self) -> Counter[str]:
        """Rejects by reason, over all sources."""
        return sum((tally.rejects for tally in self._tallies), Counter())

    @property
    def present(self) -> Tally:
        """The source being read."""
        return self._tallies[-1]

    def counts(self) -> dict[str, int]:
        return {split: self.rows(split) for split in SPLITS} | {"rejects": self.reasons().total()}

    def tokens(self) -> int:
        """Length of every example so far, together."""
        return self._tokens

    def stats(self) -> dict[str, Any]:
        """Counts, rejects by reason, token lengths of the examples, supervised tokens."""
        return {
            "rows": self.counts(),
            "rejects": dict(self.reasons()),
            "sources": [
                {"rows": tally.rows, "rejects": dict(tally.rejects)} for tally in self._tallies
            ],
            "tokens": {split: spread(self._lengths[split]) for split in SPLITS},
            "supervised_tokens": {split: self._supervised[split] for split in ENCODED},
        }


@contextmanager
def writing(folder: Path) -> Iterator[Writer]:
    """A Writer on files in `folder`, all closed when the block ends."""
    with ExitStack() as stack:
        texts = {
            name: stack.enter_context(
                (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n")
            )
            for name in (*SPLITS, "rejects")
        }
        (folder / "encoded").mkdir()
        arrows = {split: ArrowWriter(folder / "encoded" / f"{split}.arrow") for split in ENCODED}
        for arrow in arrows.values():
            stack.callback(arrow.close)
        yield Writer(texts, arrows)


def spread(lengths: Sequence[int]) -> dict[str, int] | None:
    """Sum, extremes and nearest-rank percentiles; None of nothing."""
    if not lengths:
        return None
    ordered = sorted(lengths)
    last = len(ordered) - 1
    percentiles = {f"p{p}": ordered[round(last * p / 100)] for p in (50, 90, 99)}
    return {"sum": sum(ordered), "min": ordered[0], **percentiles, "max": ordered[-1]}
