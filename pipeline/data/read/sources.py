"""Open a source of the recipe: a jsonl or parquet file, or a dataset on the hub."""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.assets import PREFIX, locate
from pipeline.data.read import hub
from pipeline.data.read.chunks import CHUNK_ROWS, Chunk, chunks_of_batches, chunks_of_lines
from pipeline.data.read.registry import Entry as Registered
from pipeline.data.read.registry import registered
from pipeline.errors import PipeError
from pipeline.recipe import Source
from pipeline.run import Entry, describe

KINDS = (".jsonl", ".parquet")

_READERS = {".json": "from_json", ".csv": "from_csv"}
"""Ending -> the function of datasets.Dataset that reads such a file."""

HEAD = 100
"""Records by which columns are checked or found."""


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

    @cached_property
    def known(self) -> Registered | None:
        """The registry's entry, where it knows the dataset."""
        return None if self.path else registered(self.source)

    def facts(self) -> dict[str, Any]:
        """What was really read, and the licence and duties that the registry knows."""
        facts: dict[str, Any] = {"dataset": self.source.dataset, "sha256": self.entry.sha256}
        if self.path is None:
            config, split = self._place.config, self._place.split
            facts |= {"config": config, "split": split, "revision": self.revision}
        if self.known:
            duties = list(self.known.duties)
            facts |= {"licence": self.known.licence, "duties": duties}
        return facts

    def head(self) -> list[Mapping[str, Any]]:
        """The first records that can be read, HEAD at most."""
        records: list[Mapping[str, Any]] = []
        for chunk in islice(self.chunks(), 4):
            records += [record for _, record in chunk.items() if isinstance(record, Mapping)]
            if len(records) >= HEAD:
                break
        return records[:HEAD]

    def chunks(self, start: int = 0, after: str | None = None) -> Iterator[Chunk]:
        """The source's records in order, `limit` at most, from chunk `start` on.

        `after` is the `after` of the chunk before it, with which a hub dataset goes on at once.
        """
        limit = self.source.limit
        if self.path is None:
            return self._stream.chunks(start, after, limit)
        if self.path.suffix == ".jsonl":
            return islice(chunks_of_lines(self.path, limit), start, None)
        return islice(chunks_of_batches(_parquet(self.path), limit), start, None)

    def total(self) -> int | None:
        """How many records there will be, where that is cheap to know."""
        total = self._total()
        limit = self.source.limit
        return limit if total is None else min(total, limit or total)

    def _total(self) -> int | None:
        if self.path is None:
            return self.known.rows if self.known else None
        if self.path.suffix == ".jsonl":
            with self.path.open("rb") as file:
                lines = (line for line in file if line.strip())
                return sum(1 for _ in islice(lines, self.source.limit))
        return int(_parquet_file(self.path).metadata.num_rows)

    @property
    def _place(self) -> hub.Place:
        return place_of(self.source)

    @cached_property
    def _stream(self) -> hub.Stream:
        return hub.Stream(self._place, str(self.revision))


def place_of(source: Source) -> hub.Place:
    """Where on the hub the source is: the recipe's words, else the registry's."""
    known = registered(source)
    config = source.config or (known.config if known else None)
    split = source.split or (known.split if known else "train")
    return hub.Place(source.dataset, config, split, source.revision)


def open_source(source: Source, recorded: str | None = None) -> Opened:
    """Settle what the source is: hash the file, or pin the hub dataset's commit.

    `recorded` is the commit that an earlier run pinned; it is taken without asking the hub.
    Raises PipeError where there is no such file or dataset, or it may not be read.
    """
    path = locate(source.dataset)
    if is_local(source.dataset):
        _check_file(source, path)
        return Opened(source, path, None, describe(path))
    place = place_of(source)
    revision = recorded or hub.pinned(place)
    identity = json.dumps([place.dataset, place.config, place.split, revision])
    return Opened(source, None, revision, Entry(sha256(identity.encode()).hexdigest(), 0))


def is_local(dataset: str) -> bool:
    """Whether a recipe's `dataset` means a file: by its form, its ending, or being there."""
    path = locate(dataset)
    return dataset.startswith((PREFIX, ".", "/", "~")) or path.suffix in KINDS or path.exists()


def _check_file(source: Source, path: Path) -> None:
    if not path.is_file():
        raise PipeError(
            f"The data file {source.dataset} is not there.",
            "Check data.sources and data.test; a path is relative to where pipe runs.",
        )
    if path.suffix not in KINDS:
        raise PipeError(
            f"{source.dataset} is neither jsonl nor parquet.",
            _conversion(path),
        )
    if not path.stat().st_size:
        raise PipeError(
            f"The data file {source.dataset} is empty.",
            "A jsonl file holds one record a line, such as "
            '{"question": "...", "reasoning": "...", "answer": "..."}',
        )
    for key in ("config", "split", "revision"):
        if getattr(source, key) is not None:
            raise PipeError(
                f"{source.dataset} is a file, and a file has no {key}.",
                f"Remove `{key}` from that source.",
            )


def _conversion(path: Path) -> str:
    """What makes a jsonl of it: a line of Python where the datasets library reads such a file."""
    if (reader := _READERS.get(path.suffix.lower())) is None:
        return f"Convert it, and name the file with {' or '.join(KINDS)}."
    made = path.with_suffix(KINDS[0])
    here, there = (json.dumps(str(each), ensure_ascii=False) for each in (path, made))
    code = f"from datasets import Dataset; Dataset.{reader}({here}).to_json({there})"
    return (
        f"Convert it: {shlex.join([sys.executable, '-c', code])}\n"
        f"Then name {made}, and the columns that hold question and answer."
    )


def _parquet(path: Path) -> Iterator[Any]:
    from pyarrow import ArrowException

    try:
        yield from _parquet_file(path).iter_batches(batch_size=CHUNK_ROWS)
    except (ArrowException, OSError) as error:
        raise _no_parquet(path, error) from None


def _parquet_file(path: Path) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise _no_parquet(path, error) from None


def _no_parquet(path: Path, error: Exception) -> PipeError:
    reason = str(error).splitlines()[0]
    return PipeError(f"{path} is no whole parquet file: {reason}", "Fetch or write it again.")
