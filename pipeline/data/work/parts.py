"""What was made of one chunk, on disk until all is known: what a later prepare goes on from.

A part is an Arrow IPC file of one batch, a row per kept row. It is written under a hidden name
and renamed; its name holds the sha256 of its bytes, so that a torn one is not taken for whole.
"""

import json
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.work.fingerprints import PERMUTATIONS, row_key
from pipeline.data.work.worker import SPLITS, Kept, Worked
from pipeline.run.files import explained_writes, sha256_of
from pipeline.run.rows import jsonl_line

EDGES = (0, 64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768)
"""Tokens: a bin holds the lengths above its edge, up to the next one's; the last has no end."""

_HASH = 16
"""Hex digits of the sha256 in a part's name."""


@dataclass(frozen=True)
class Tally:
    """What became of the records of a chunk, or of a source: add them up."""

    records: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    first: Mapping[str, str] = field(default_factory=dict)
    """Reason -> where it was first met."""
    too_long: Counter[int] = field(default_factory=Counter)
    """Rows dropped for their length, by bin of EDGES."""
    tokens: int = 0

    def __add__(self, later: "Tally") -> "Tally":
        return Tally(
            self.records + later.records,
            self.rejects + later.rejects,
            {**later.first, **self.first},
            self.too_long + later.too_long,
            self.tokens + later.tokens,
        )

    @property
    def rows(self) -> int:
        return self.records - self.rejects.total()


@dataclass(frozen=True)
class Part:
    """A published part, and the few figures that are kept in memory."""

    path: Path
    tally: Tally
    after: str | None


def bin_of(length: int) -> int:
    """The bin of EDGES that a length in tokens falls to."""
    return max(0, bisect_left(EDGES, length) - 1)


def write_part(folder: Path, number: int, worked: Worked, after: str | None) -> Part:
    """Write the chunk's part."""
    import pyarrow

    tally = _tally(worked)
    batch = _batch(worked.kept)
    rejects = "".join(jsonl_line(reject.as_dict()) for reject in worked.rejects)
    facts = {"tally": _as_json(tally), "after": after}
    batch = batch.replace_schema_metadata({"facts": json.dumps(facts), "rejects": rejects})
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content = sink.getvalue()
    name = f"{number:07}-{sha256(content).hexdigest()[:_HASH]}.arrow"
    for other in folder.glob(f"{number:07}-*"):
        other.unlink()
    hidden = folder / f".{name}"
    with explained_writes("data"):
        hidden.write_bytes(content)
    return Part(hidden.rename(folder / name), tally, after)


def find_part(folder: Path, number: int) -> Part | None:
    """The whole part of that number, where an earlier prepare left one."""
    for path in folder.glob(f"{number:07}-*.arrow"):
        if sha256_of(path)[:_HASH] == path.stem.partition("-")[2]:
            with OpenPart(path) as part:
                return Part(path, part.tally, part.after)
        path.unlink()
    return None


class OpenPart:
    """A part's columns, mapped from disk; `with` it, and let no view outlive it."""

    def __init__(self, path: Path) -> None:
        import pyarrow

        self._file = pyarrow.memory_map(str(path))
        reader = pyarrow.ipc.open_file(self._file)
        self._batch = reader.get_batch(0)
        metadata = reader.schema.metadata
        facts = json.loads(metadata[b"facts"])
        self.tally = _of_json(facts["tally"])
        self.after: str | None = facts["after"]
        self.rejects: bytes = metadata[b"rejects"]

    def __enter__(self) -> "OpenPart":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def numbers(self, name: str, dtype: str) -> "np.ndarray[Any, Any]":
        """A column of numbers, [rows]."""
        return _numpy(self._batch.column(name), dtype)

    def signatures(self) -> "np.ndarray[Any, Any]":
        """uint32 [rows, PERMUTATIONS]."""
        values = _numpy(self._batch.column("signature").values, "uint32")
        return values.reshape(-1, PERMUTATIONS)

    def lists(self, name: str, dtype: str) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
        """A column of lists: all values, and int32 offsets [rows + 1]."""
        column = self._batch.column(name)
        return _numpy(column.values, dtype), _numpy(column.offsets, "int32")

    def texts(self, name: str) -> "Texts":
        """A column of texts."""
        column = self._batch.column(name)
        _, offsets, data = column.buffers()
        return Texts(np.frombuffer(offsets, "int64", len(column) + 1), memoryview(data or b""))


@dataclass(frozen=True)
class Texts:
    """UTF-8 texts, one after the other."""

    offsets: "np.ndarray[Any, Any]"
    data: memoryview

    def __getitem__(self, row: int) -> bytes:
        return bytes(self.data[self.offsets[row] : self.offsets[row + 1]])


def _tally(worked: Worked) -> Tally:
    reasons = Counter(reject.reason for reject in worked.rejects)
    first: dict[str, str] = {}
    for reject in worked.rejects:
        first.setdefault(reject.reason, reject.where)
    return Tally(
        records=len(worked.kept) + len(worked.rejects),
        rejects=reasons,
        first=first,
        too_long=Counter(bin_of(length) for length in worked.too_long),
        tokens=sum(len(kept.example.ids) for kept in worked.kept),
    )


def _as_json(tally: Tally) -> dict[str, Any]:
    return vars(tally) | {"rejects": dict(tally.rejects), "too_long": dict(tally.too_long)}


def _of_json(values: dict[str, Any]) -> Tally:
    too_long = Counter({int(place): rows for place, rows in values["too_long"].items()})
    return Tally(**(values | {"rejects": Counter(values["rejects"]), "too_long": too_long}))


def _batch(kept: Sequence[Kept]) -> Any:
    import pyarrow

    prints = [each.fingerprints for each in kept]
    columns = {
        "line": _binary([_line(each) for each in kept]),
        "where": _binary([each.where.encode() for each in kept]),
        "input_ids": _lists("int32", [array("i", each.example.ids) for each in kept]),
        "came": _array("int32", [each.came for each in kept]),
        "target_start": _array("int32", [each.example.target_start for each in kept]),
        "split": _array("int8", [SPLITS.index(each.split) for each in kept]),
        "draw": _array("uint64", [each.draw for each in kept]),
        "question_key": _array("uint64", [each.key for each in prints]),
        "row_key": _array("uint64", [_row_key(each) for each in kept]),
        "grams": _lists("uint64", [each.grams for each in prints]),
        "signature": pyarrow.FixedSizeListArray.from_arrays(
            _array("uint32", np.ravel([each.signature for each in prints])), PERMUTATIONS
        ),
    }
    return pyarrow.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _line(kept: Kept) -> bytes:
    trained = {} if kept.split == "test" else {"thinking": kept.thinking}
    return jsonl_line(kept.row.as_dict() | trained).encode()


def _row_key(kept: Kept) -> int:
    row = kept.row
    return row_key(row.system, row.question, row.reasoning, row.answer)


def _array(dtype: str, values: Any) -> Any:
    """From the buffer itself: pyarrow imports pandas to look at anything else."""
    import pyarrow

    held = np.ascontiguousarray(values, dtype)
    kind = getattr(pyarrow, dtype)()
    return pyarrow.Array.from_buffers(kind, len(held), [None, pyarrow.py_buffer(held)])


def _lists(dtype: str, rows: Sequence[Any]) -> Any:
    import pyarrow

    arrays = [np.frombuffer(row, dtype) for row in rows]
    values = np.concatenate(arrays) if arrays else np.empty(0, dtype)
    offsets = list(accumulate(map(len, arrays), initial=0))
    return pyarrow.ListArray.from_arrays(_array("int32", offsets), _array(dtype, values))


def _binary(texts: Sequence[bytes]) -> Any:
    import pyarrow

    offsets = np.fromiter(accumulate(map(len, texts), initial=0), "int64", len(texts) + 1)
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(b"".join(texts))]
    return pyarrow.Array.from_buffers(pyarrow.large_binary(), len(texts), buffers)


def _numpy(column: Any, dtype: str) -> "np.ndarray[Any, Any]":
    """The column's own memory, not copied."""
    data = column.buffers()[1]
    if data is None or not len(column):
        return np.empty(0, dtype)
    return np.frombuffer(data, dtype, len(column), column.offset * np.dtype(dtype).itemsize)
