"""Open a source of the recipe: a jsonl or parquet file, or a dataset on the hub."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.assets import PREFIX, locate
from pipeline.data.hub import pinned, stream
from pipeline.errors import PipeError
from pipeline.recipe import Source
from pipeline.run import Entry, describe

KINDS = (".jsonl", ".parquet")
_BATCH = 128


@dataclass(frozen=True)
class Unreadable:
    """What stands where a record should be."""

    reason: str
    excerpt: str


Item = tuple[str, Mapping[str, Any] | Unreadable]
"""Where it is (`line 7`, `row 7`; from 1 on), and the record."""


@dataclass(frozen=True)
class Opened:
    """A source whose content is settled: a file of that hash, or a hub dataset at a commit."""

    source: Source
    path: Path | None
    """None for a hub dataset."""
    revision: str | None
    """Commit of the hub dataset; None for a file."""
    entry: Entry

    @property
    def label(self) -> str:
        """What the manifest calls this input."""
        return self.path.name if self.path else f"{self.source.dataset}@{self.revision}"

    def facts(self) -> dict[str, Any]:
        """What was really read."""
        facts: dict[str, Any] = {"dataset": self.source.dataset, "sha256": self.entry.sha256}
        if self.path is None:
            config, split = self.source.config, self.source.split
            facts |= {"config": config, "split": split, "revision": self.revision}
        return facts

    def items(self) -> Iterator[Item]:
        """Every record in the source's order, `limit` at most; a bad one is an Unreadable."""
        return islice(self._all(), self.source.limit)

    def total(self) -> int | None:
        """How many items there will be, where that is cheap to know."""
        total = self._total()
        limit = self.source.limit
        return limit if total is None else min(total, limit or total)

    def _all(self) -> Iterator[Item]:
        if self.path is None:
            return _enumerated(stream(self.source, str(self.revision)))
        return _jsonl(self.path) if self.path.suffix == ".jsonl" else _parquet(self.path)

    def _total(self) -> int | None:
        if self.path is None:
            return None
        if self.path.suffix == ".jsonl":
            with self.path.open("rb") as file:
                return sum(1 for line in file if line.strip())
        return int(_parquet_file(self.path).metadata.num_rows)


def open_source(source: Source, recorded: str | None = None) -> Opened:
    """Settle what the source is: hash the file, or pin the hub dataset's commit.

    `recorded` is the commit that an earlier run pinned; it is taken without asking the hub.
    Raises PipeError where there is no such file or dataset, or it may not be read.
    """
    path = locate(source.dataset)
    if _is_local(source.dataset, path):
        _check_file(source, path)
        return Opened(source, path, None, describe(path))
    revision = recorded or pinned(source)
    identity = json.dumps([source.dataset, source.config, source.split, revision])
    return Opened(source, None, revision, Entry(sha256(identity.encode()).hexdigest(), 0))


def _is_local(dataset: str, path: Path) -> bool:
    """Whether a recipe's `dataset` means a file: by its form, its ending, or being there."""
    return dataset.startswith((PREFIX, ".", "/", "~")) or path.suffix in KINDS or path.exists()


def _enumerated(records: Iterator[Mapping[str, Any]]) -> Iterator[Item]:
    for number, record in enumerate(records, 1):
        yield f"row {number}", record


def _check_file(source: Source, path: Path) -> None:
    if not path.is_file():
        raise PipeError(
            f"The data file {source.dataset} is not there.",
            "Check data.sources and data.test; a path is relative to where pipe runs.",
        )
    if path.suffix not in KINDS:
        raise PipeError(
            f"{source.dataset} is neither jsonl nor parquet.",
            f"Convert it, and name the file with {' or '.join(KINDS)}.",
        )
    for key in ("config", "revision"):
        if getattr(source, key) is not None:
            raise PipeError(
                f"{source.dataset} is a file, and a file has no {key}.",
                f"Remove `{key}` from that source.",
            )


def _jsonl(path: Path) -> Iterator[Item]:
    """Lines by hand, so that a bad one is a reject with its number; empty lines are passed over."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if content.strip():
                yield f"line {number}", _parsed(content)


def _parsed(line: bytes) -> Mapping[str, Any] | Unreadable:
    shown = line[:1000].decode("utf-8", "backslashreplace").strip()
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return Unreadable("bad_encoding", shown)
    except (ValueError, RecursionError):
        return Unreadable("malformed_record", shown)
    return value if isinstance(value, dict) else Unreadable("malformed_record", shown)


def _parquet(path: Path) -> Iterator[Item]:
    from pyarrow import ArrowException

    number = 0
    try:
        for batch in _parquet_file(path).iter_batches(batch_size=_BATCH):
            for offset in range(batch.num_rows):
                number += 1
                yield f"row {number}", _parquet_row(batch, offset)
    except (ArrowException, OSError) as error:
        raise _no_parquet(path, error) from None


def _parquet_row(batch: Any, offset: int) -> Mapping[str, Any] | Unreadable:
    try:
        return dict(batch.slice(offset, 1).to_pylist()[0])
    except UnicodeDecodeError as error:
        return Unreadable("bad_encoding", str(error))


def _parquet_file(path: Path) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise _no_parquet(path, error) from None


def _no_parquet(path: Path, error: Exception) -> PipeError:
    reason = str(error).splitlines()[0]
    return PipeError(f"{path} is no whole parquet file: {reason}", "Fetch or write it again.")
