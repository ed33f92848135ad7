"""A source's records in chunks: read here, taken apart where the chunk is worked on."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

CHUNK_ROWS = 256
CHUNK_BYTES = 8 * 2**20
"""A chunk of lines ends once it holds so much."""


@dataclass(frozen=True)
class Unreadable:
    """What stands where a record should be."""

    reason: str
    excerpt: str


Record = Mapping[str, Any] | Unreadable
Item = tuple[str, Record]
"""Where it is (`line 7`, `row 7`; from 1 on), and the record."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive records of a source, not parsed yet: cheap to hand to another process."""

    number: int
    """From 0 on."""
    first: int
    """Index of its first record in the source."""
    lines: tuple[tuple[int, bytes], ...] = ()
    """Line number and text of a jsonl file's lines."""
    table: bytes = b""
    """An Arrow IPC stream of a parquet file's or a hub dataset's rows, instead of lines."""
    rows: int = 0
    """... how many."""
    after: str | None = None
    """Where a hub dataset's stream stands after it, as JSON."""

    def __len__(self) -> int:
        return self.rows if self.table else len(self.lines)

    def items(self) -> Iterator[Item]:
        """Every record with its place; a bad one is an Unreadable."""
        if not self.table:
            return ((f"line {number}", _parsed(line)) for number, line in self.lines)
        places = (f"row {self.first + offset + 1}" for offset in range(len(self)))
        return zip(places, _records(self.table), strict=True)


def chunks_of_lines(path: Path, limit: int | None) -> Iterator[Chunk]:
    """A jsonl file's lines, empty ones passed over."""
    with path.open("rb") as file:
        numbered = ((number, _without_mark(number, line)) for number, line in enumerate(file, 1))
        lines = islice(((n, line) for n, line in numbered if line.strip()), limit)
        number = first = 0
        while held := _hold(lines):
            yield Chunk(number, first, lines=tuple(held))
            number, first = number + 1, first + len(held)


def chunks_of_batches(
    batches: Iterable[Any], limit: int | None, number: int = 0, first: int = 0
) -> Iterator[Chunk]:
    """Record batches, as they are, until `limit` records; `number` and `first` begin there."""
    for batch in batches:
        left = batch.num_rows if limit is None else min(batch.num_rows, limit - first)
        if left <= 0:
            return
        yield Chunk(number, first, table=_written(batch.slice(0, left)), rows=left)
        number, first = number + 1, first + left


def _hold(lines: Iterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """The next CHUNK_ROWS lines, or fewer where they are long."""
    held: list[tuple[int, bytes]] = []
    size = 0
    for number, line in lines:
        held.append((number, line))
        size += len(line)
        if len(held) == CHUNK_ROWS or size >= CHUNK_BYTES:
            break
    return held


def _without_mark(number: int, line: bytes) -> bytes:
    return line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _parsed(line: bytes) -> Record:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return Unreadable("bad_encoding", _shown(line))
    except (ValueError, RecursionError):
        return Unreadable("malformed_record", _shown(line))
    return value if isinstance(value, dict) else Unreadable("malformed_record", _shown(line))


def _shown(line: bytes) -> str:
    return line[:1000].decode("utf-8", "backslashreplace").strip()


def _written(batch: Any) -> bytes:
    """Only the rows that the batch shows: pickling it would take all that its buffers hold."""
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _records(table: bytes) -> Iterator[Record]:
    import pyarrow

    rows = pyarrow.ipc.open_stream(table).read_all()
    try:
        yield from rows.to_pylist()
    except (ValueError, OverflowError):
        yield from (_record(rows, offset) for offset in range(rows.num_rows))


def _record(rows: Any, offset: int) -> Record:
    try:
        return dict(rows.slice(offset, 1).to_pylist()[0])
    except UnicodeDecodeError as error:
        return Unreadable("bad_encoding", str(error))
    except (ValueError, OverflowError) as error:  # a date that Python cannot hold
        return Unreadable("malformed_record", str(error))
