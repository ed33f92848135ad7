"""The files of the data folder: rows by split, rejects, encoded examples."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.data.work.worker import SPLITS, Split

ENCODED: tuple[Split, ...] = ("train", "eval", "general")
_BATCH = 1000


@dataclass(frozen=True)
class Line:
    """A row as it is written."""

    split: Split
    text: bytes
    """The row as one line of jsonl."""
    ids: "np.ndarray[Any, Any]"
    """int32, the example's tokens."""
    target_start: int


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
        self._ids: list[np.ndarray[Any, Any]] = []
        self._starts: list[int] = []

    def add(self, ids: "np.ndarray[Any, Any]", target_start: int) -> None:
        """One example; `ids` is copied."""
        self._ids.append(np.array(ids, "int32"))
        self._starts.append(target_start)
        if len(self._ids) == _BATCH:
            self._flush()

    def close(self) -> None:
        if self._ids:
            self._flush()
        self._stream.close()

    def _flush(self) -> None:
        offsets = np.cumsum([0, *map(len, self._ids)], dtype="int32")
        ids = np.concatenate(self._ids)
        lists = self._pyarrow.ListArray.from_arrays(self._int32(offsets), self._int32(ids))
        columns = [lists, self._int32(np.array(self._starts, "int32"))]
        self._stream.write_batch(
            self._pyarrow.RecordBatch.from_arrays(columns, schema=self._schema)
        )
        self._ids.clear()
        self._starts.clear()

    def _int32(self, values: "np.ndarray[Any, Any]") -> Any:
        """From the buffer itself: pyarrow imports pandas to look at anything else."""
        buffer = self._pyarrow.py_buffer(values)
        return self._pyarrow.Array.from_buffers(self._pyarrow.int32(), len(values), [None, buffer])


class Writer:
    """Takes rows and rejects in their final order.

    Row k of a split's Arrow file is line k of its jsonl file, counted from 0.
    """

    def __init__(self, files: Mapping[str, BinaryIO], arrows: Mapping[Split, ArrowWriter]) -> None:
        self._files = files
        self._arrows = arrows
        self.supervised: Counter[str] = Counter()
        """Supervised tokens by split."""

    def add(self, line: Line) -> None:
        self._files[line.split].write(line.text)
        if line.split in self._arrows:
            self._arrows[line.split].add(line.ids, line.target_start)
            self.supervised[line.split] += len(line.ids) - line.target_start

    def reject(self, lines: bytes) -> None:
        """Rejects as lines of jsonl."""
        self._files["rejects"].write(lines)


@contextmanager
def writing(folder: Path) -> Iterator[Writer]:
    """A Writer on files in `folder`, all closed when the block ends."""
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {
            name: stack.enter_context((folder / f"{name}.jsonl").open("wb"))
            for name in (*SPLITS, "rejects")
        }
        (folder / "encoded").mkdir()
        arrows = {split: ArrowWriter(folder / "encoded" / f"{split}.arrow") for split in ENCODED}
        for arrow in arrows.values():
            stack.callback(arrow.close)
        yield Writer(files, arrows)
