"""Every source through the workers into parts on disk; goes on where an earlier one ended."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from pipeline.data.read.columns import Settled, settle_columns
from pipeline.data.read.sources import Opened
from pipeline.data.work.parts import Part, Tally, find_part
from pipeline.data.work.pool import Job, Setup, parts_of
from pipeline.data.work.worker import Task
from pipeline.errors import PipeError
from pipeline.recipe import Filters, Recipe, Source
from pipeline.run import Emit, Note, Progress, versions_of

DECIDING = (
    "datasketch", "latex2sympy2_extended", "math-verify", "py3langid", "sympy", "tiktoken",
    "tokenizers", "xxhash",
)  # fmt: skip
"""What decides over rows: parts that other versions made are not gone on from."""

_EVERY = 0.5
"""Seconds between two Progress events."""

_HOPELESS = 1000
"""Records; a source that has given no row by then is stopped."""

_KEPT_APART = Filters(repetition=False, correct=False, verify=False)
"""A file of test questions is held to its form and length alone, unless it brings filters."""


@dataclass
class Gathered:
    """One source, settled, and what its chunks became."""

    opened: Opened
    settled: Settled
    task: Task
    parts: list[Path] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def add(self, part: Part) -> None:
        self.parts.append(part.path)
        self.tally += part.tally


class Gatherer:
    """Fills `folder` with parts, one folder below it a source."""

    def __init__(self, recipe: Recipe, setup: Setup, folder: Path, emit: Emit) -> None:
        self._recipe = recipe
        self._setup = setup
        self._folder = folder
        self._emit = emit

    def gather(
        self, train: tuple[Opened, ...], test: Opened | None, *, accept: bool
    ) -> list[Gathered]:
        """All parts of all sources; raises PipeError for a source whose columns are not known.

        `accept` takes columns that were found by looking at the rows.
        """
        opened = (*train, test) if test else train
        sources = [
            self._settled(each, number, is_test=each is test, accept=accept)
            for number, each in enumerate(opened)
        ]
        folders = [self._folder / self._key(each) for each in sources]
        self._clear(folders)
        shown, current = _Shown(self._emit), 0
        for number, part in parts_of(self._jobs(sources, folders, shown), self._setup):
            for done in sources[current:number]:
                shown.ended(done)
            current = number
            sources[number].add(part)
            shown.moved(sources[number])
            _check_hope(sources[number])
        for done in sources[current:]:
            shown.ended(done)
        return sources

    def _settled(self, opened: Opened, number: int, *, is_test: bool, accept: bool) -> Gathered:
        settled = settle_columns(opened.source, opened.head(), accept=accept)
        if settled.origin == "detected":
            self._emit(Note(f"{opened.source.dataset}: columns taken as found: {settled.shown()}"))
        return Gathered(
            opened, settled, task_of(self._recipe, opened.source, settled, number, is_test=is_test)
        )

    def _key(self, gathered: Gathered) -> str:
        """Name of the parts' folder: equal for equal work alone."""
        task = asdict(gathered.task) | {
            "columns": gathered.task.columns.model_dump(mode="json"),
            "filters": gathered.task.filters.model_dump(mode="json"),
        }
        content = [
            task,
            gathered.opened.entry.sha256,
            gathered.opened.source.limit,
            hashlib.sha256(self._setup.tokenizer_json.read_bytes()).hexdigest(),
            self._setup.chat_format,
            versions_of(*DECIDING),
            _code(),
        ]
        text = json.dumps(content, sort_keys=True)
        return f"{gathered.task.number}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def _clear(self, folders: list[Path]) -> None:
        """Make the folders; parts of other work are removed."""
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for found in self._folder.iterdir():
            if found.is_dir() and found not in folders:
                shutil.rmtree(found)

    def _jobs(self, sources: list[Gathered], folders: list[Path], shown: "_Shown") -> Iterator[Job]:
        for source, folder in zip(sources, folders, strict=True):
            after = self._go_on(source, folder)
            shown.begin(source)
            for chunk in source.opened.chunks(len(source.parts), after):
                yield Job(source.task, chunk, folder)

    def _go_on(self, source: Gathered, folder: Path) -> str | None:
        """Take the parts that are there; where the stream stands after them."""
        after = None
        while part := find_part(folder, len(source.parts)):
            source.add(part)
            after = part.after
        if source.parts:
            name, records = source.opened.source.dataset, source.tally.records
            self._emit(Note(f"{name}: goes on after {records} records prepared before."))
        return after


def task_of(
    recipe: Recipe, source: Source, settled: Settled, number: int, *, is_test: bool
) -> Task:
    """What the recipe asks of a source, its columns settled."""
    data = recipe.data
    usual = _KEPT_APART if is_test else data.filters
    return Task(
        number=number,
        dataset=source.dataset,
        columns=settled.columns,
        filters=source.filters or usual,
        max_seq_length=recipe.model.max_seq_length,
        seed=recipe.seed,
        draw_seed=recipe.seed if source.seed is None else source.seed,
        is_test=is_test,
        eval_share=data.eval_share,
        test_share=0.0 if data.test else data.test_share,
        no_thinking_share=data.no_thinking_share,
    )


class _Shown:
    """Progress events, source by source."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._began: dict[int, tuple[float, Tally, int | None]] = {}
        self._last = monotonic()

    def begin(self, source: Gathered) -> None:
        self._began[source.task.number] = (monotonic(), source.tally, source.opened.total())

    def moved(self, source: Gathered) -> None:
        total = self._began[source.task.number][2]
        if monotonic() - self._last >= _EVERY and source.tally.records != total:
            self._last = monotonic()
            self._emit(self._progress(source, total))

    def ended(self, source: Gathered) -> None:
        self._emit(self._progress(source, source.tally.records))

    def _progress(self, source: Gathered, total: int | None) -> Progress:
        began, before, _ = self._began[source.task.number]
        seconds = max(monotonic() - began, 1e-6)
        tally = source.tally
        figures = {
            "rows/s": f"{(tally.records - before.records) / seconds:.0f}",
            "tokens/s": f"{(tally.tokens - before.tokens) / seconds:.0f}",
            "rejected": str(tally.rejects.total()),
        }
        task = f"prepare {source.opened.source.dataset}"
        return Progress(task, tally.records, total, "rows", figures)


def table(reasons: Any, first: Any = None) -> str:
    """Reasons and counts, the most frequent first, with where each was first met."""
    ordered = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    places = {reason: f" (first: {where})" for reason, where in (first or {}).items()}
    return ", ".join(f"{reason} {count}{places.get(reason, '')}" for reason, count in ordered)


def _check_hope(source: Gathered) -> None:
    tally = source.tally
    if tally.records >= _HOPELESS and not tally.rows and source.opened.source.max_loss < 1:
        raise PipeError(
            f"None of the first {tally.records} rows of {source.opened.source.dataset} can be "
            f"used: {table(tally.rejects, tally.first)}.",
            "Look at the rows named, give the source its columns, or take another config.",
        )


def _code() -> str:
    """Hash of the modules that make a part: what other code made is not gone on from."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for room in ("answers", "chat", "data/read", "data/work"):
        for module in sorted((package / room).glob("*.py")):
            digest.update(module.read_bytes())
    return digest.hexdigest()
