"""What is asked: the run's held-out rows, a file, a benchmark on the hub, an installed task."""

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from pipeline.assets import PREFIX, locate
from pipeline.errors import PipeError
from pipeline.evaluate import plugins
from pipeline.evaluate.items import Item, item_of
from pipeline.evaluate.task_file import TaskFile, builtin_path, builtin_tasks, read_task_file
from pipeline.recipe import Source
from pipeline.run import Entry, Run, describe
from pipeline.run.rows import held_out_rows

TEST = "test"
_ROWS = (".jsonl", ".parquet")
_YAML = (".yaml", ".yml")


class Table(Protocol):
    """A file or hub dataset whose content is settled."""

    @property
    def label(self) -> str: ...
    @property
    def entry(self) -> Entry: ...
    @property
    def revision(self) -> str | None:
        """The commit of a hub dataset."""

    def facts(self) -> dict[str, Any]: ...
    def chunks(self) -> Iterator[Any]:
        """Their `items()` are (where, record); a record that cannot be read is no mapping."""


Opener = Callable[[Source, str | None], Table]
"""(source, the commit that was recorded for it) -> its content."""


@dataclass(frozen=True)
class Task:
    """Questions that are settled but not read yet."""

    name: str
    entries: Mapping[str, Entry]
    """What the manifest records of them, beside the run's own data."""
    facts: Mapping[str, Any]
    rows: Callable[[int | None], list[tuple[str, Mapping[str, Any]]]]
    """(limit) -> (where, row) from the first on."""

    def items(self, limit: int | None) -> list[Item]:
        """The first `limit` questions. Raises PipeError for none, or one that cannot be asked."""
        items = [item_of(row, where, self.name) for where, row in self.rows(limit)]
        if not items:
            raise PipeError(f"The task {self.name} has no question.", "Check its source.")
        return items


def open_tasks(
    references: tuple[str, ...], run: Run, opener: Opener, pins: Mapping[str, str]
) -> list[Task]:
    """Settle each task. `pins` is commit by `asked_for`, as earlier work recorded them.

    Raises PipeError for one that is not there, and for two of one name.
    """
    tasks = [_open(reference, run, opener, pins) for reference in references]
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PipeError(f"Two tasks are called {twice}.", "Rename one of the files.")
    return tasks


def asked_for(source: Source) -> str:
    """The words by which a hub dataset was asked for."""
    return json.dumps([source.dataset, source.config, source.split, source.revision])


def _open(reference: str, run: Run, opener: Opener, pins: Mapping[str, str]) -> Task:
    path = locate(reference)
    if reference == TEST:
        return Task(TEST, {}, {"dataset": TEST}, lambda limit: _held_out(run, limit))
    if reference in builtin_tasks():
        return _of_file(builtin_path(reference), opener, pins)
    if path.suffix in _YAML:
        return _of_file(path, opener, pins)
    if path.suffix in _ROWS or reference.startswith((PREFIX, ".", "/", "~")):
        return _of_table(path.stem, Source(dataset=reference), None, opener, pins)
    if entry := plugins.find(plugins.TASKS, reference):
        return _of_package(entry)
    raise _unknown(reference)


def _unknown(reference: str) -> PipeError:
    known = [TEST, *builtin_tasks(), *plugins.names(plugins.TASKS)]
    near = difflib.get_close_matches(reference, known, 1)
    suggestion = f"Did you mean {near[0]}? " if near else ""
    return PipeError(
        f"There is no task {reference}.",
        f"{suggestion}There is: {', '.join(known)}; or name a .jsonl, .parquet or .yaml file.",
    )


def _held_out(run: Run, limit: int | None) -> list[tuple[str, Mapping[str, Any]]]:
    rows = held_out_rows(run, limit)
    return [(f"row {number}", row) for number, row in enumerate(rows, 1)]


def _of_file(path: Path, opener: Opener, pins: Mapping[str, str]) -> Task:
    """A YAML file's task: its own bytes count as well as the rows'."""
    file = read_task_file(path)
    task = _of_table(path.stem, file.source(path.parent), file, opener, pins)
    entries = {f"task/{path.stem}": describe(path), **task.entries}
    return Task(task.name, entries, task.facts, task.rows)


def _of_table(
    name: str, source: Source, file: TaskFile | None, opener: Opener, pins: Mapping[str, str]
) -> Task:
    words = asked_for(source)
    table = _opened(name, source, opener, pins.get(words))
    facts = {**table.facts(), "asked": words if table.revision else None}

    def rows(limit: int | None) -> list[tuple[str, Mapping[str, Any]]]:
        records = islice(_records(table, name), limit)
        return [(where, _row(file, record, where, name)) for where, record in records]

    return Task(name, {f"task/{name}/{table.label}": table.entry}, facts, rows)


def _row(
    file: TaskFile | None, record: Mapping[str, Any], where: str, name: str
) -> Mapping[str, Any]:
    try:
        return file.row(record, where) if file else record
    except PipeError as error:
        raise PipeError(f"{name}, {error.message}", error.hint) from None


def _opened(name: str, source: Source, opener: Opener, recorded: str | None) -> Table:
    try:
        return opener(source, recorded)
    except PipeError as error:
        raise _said_of(name, error) from None


def _records(table: Table, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        for chunk in table.chunks():
            for where, record in chunk.items():
                if not isinstance(record, Mapping):
                    raise PipeError(f"{where} cannot be read: {record.reason}.", "Correct it.")
                yield where, record
    except PipeError as error:
        raise _said_of(name, error) from None


def _said_of(name: str, error: PipeError) -> PipeError:
    """The reader's words with the task's name; its hints are about the recipe's data."""
    hint = error.hint
    if "data." in hint or not hint:
        hint = "Check the task: its dataset, config, split and revision, or its file."
    return PipeError(f"The task {name}: {error.message}", hint)


def _of_package(entry: EntryPoint) -> Task:
    found = plugins.installed_rows(entry)
    text = json.dumps([dict(row) for row in found], sort_keys=True, default=str)
    content = Entry(hashlib.sha256(text.encode()).hexdigest(), len(text.encode()))
    package = entry.dist.name if entry.dist else entry.value
    rows = [(f"row {number}", row) for number, row in enumerate(found, 1)]
    facts = {"dataset": entry.value, "package": package, "sha256": content.sha256}
    return Task(entry.name, {f"task/{entry.name}": content}, facts, lambda limit: rows[:limit])
