"""Benchmark questions that the user points at, to be kept out of the training rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.data.read.chunks import Record
from pipeline.data.read.sources import Opened, is_local, open_source
from pipeline.errors import PipeError
from pipeline.recipe import Benchmark, Source

_NAMES = ("question", "problem", "prompt", "Question", "Problem", "input")


@dataclass(frozen=True)
class HeldOut:
    """A benchmark whose content is settled."""

    opened: Opened
    column: str | None

    def facts(self) -> dict[str, Any]:
        return self.opened.facts()

    def questions(self) -> Iterator[str]:
        """Every question; raises PipeError where there is no such column, or a record has none."""
        for chunk in self.opened.chunks():
            for where, record in chunk.items():
                yield _question(record, self.column, f"{self.opened.source.dataset}, {where}")


def open_benchmark(benchmark: Benchmark, recorded: str | None = None) -> HeldOut:
    """Settle what the benchmark is, as a source's content is settled."""
    return HeldOut(open_source(source_of(benchmark), recorded), benchmark.question)


def source_of(benchmark: Benchmark) -> Source:
    """The same place as a source: a file has no split."""
    return Source(
        dataset=benchmark.dataset,
        config=benchmark.config,
        split=None if is_local(benchmark.dataset) else benchmark.split,
        revision=benchmark.revision,
    )


def _question(record: Record, column: str | None, where: str) -> str:
    if not isinstance(record, Mapping):
        raise PipeError(f"{where} of data.decontaminate cannot be read: {record.reason}.")
    names = (column,) if column else _NAMES
    found = next((record[name] for name in names if isinstance(record.get(name), str)), None)
    if found is None:
        raise PipeError(
            f"{where}: no question in a column {' or '.join(names)}. "
            f"Found: {', '.join(map(str, record))}.",
            "Name the column: data.decontaminate.0.question",
        )
    return str(found)
