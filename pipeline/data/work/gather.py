"""Every source through the workers into parts on disk; goes on where an earlier one ended."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from pipeline.data.read.columns import Settled, settle_columns
from pipeline.data.read.detect import Head
from pipeline.data.read.rows import Row, to_row
from pipeline.data.read.sources import Opened
from pipeline.data.work.parts import Part, Tally, find_part
from pipeline.data.work.pool import Job, Setup, parts_of
from pipeline.data.work.worker import Kind, Task
from pipeline.errors import PipeError
from pipeline.recipe import Columns, Filters, Recipe, Source
from pipeline.run import Emit, Note, Progress, versions_of
from pipeline.run.disk import require_space
from pipeline.run.files import sha256_of, sha256_of_json

DECIDING = (
    "datasketch", "latex2sympy2_extended", "math-verify", "py3langid", "sympy", "tiktoken",
    "tokenizers", "xxhash",
)  # fmt: skip
"""What decides over rows: parts that other versions made are not gone on from."""

_EVERY = 0.5
"""Seconds between two Progress events."""

_BYTES_A_BYTE, _BYTES_A_ROW = 5, 1500
"""On the disk for a byte of text and for a row: the text and its ids, 4 bytes each for some 4 bytes
of text, stand in parts and in files; 512 bytes of a row are its signature, twice. With the tiny
base's 640 tokens it is half as much again: what is left is looked at again before the files."""

_HOPELESS = 1000
"""Records; a source that has given no row by then is stopped."""

_TEST = Filters(repetition=False, correct=False, verify=False)
"""A file of test questions is held to its form and length alone, unless it brings filters."""

_GENERAL = Filters()
"""General rows are short and in many languages, whatever the reasoning rows are."""


@dataclass
class Gathered:
    """One source, settled, and what its chunks became."""

    opened: Opened
    settled: Settled
    task: Task
    expected_bytes: int
    """What its rows will take on the disk, by its first ones; 0 where nobody knows how many."""
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

    def gather(self, opened: Sequence[tuple[Kind, Opened]], *, accept: bool) -> list[Gathered]:
        """All parts of all sources; raises PipeError for a source whose columns are not known.

        `accept` takes columns that were found by looking at the rows. Raises PipeError too where
        the disk has no room for what the first rows let expect.
        """
        sources = [
            self._settled(each, number, kind, accept=accept)
            for number, (kind, each) in enumerate(opened)
        ]
        folders = [self._folder / self._key(each) for each in sources]
        self._clear(folders)
        self._check_space(sources)
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

    def _settled(self, opened: Opened, number: int, kind: Kind, *, accept: bool) -> Gathered:
        head = opened.head()
        settled = settle_columns(opened.source, head, accept=accept)
        if settled.origin == "detected":
            self._emit(Note(f"{opened.source.dataset}: columns taken as found: {settled.shown()}"))
        task = task_of(self._recipe, opened.source, settled, number, kind)
        size = _bytes_of(settled.columns, head, opened.total() or 0)
        return Gathered(opened, settled, task, size)

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
            sha256_of(self._setup.tokenizer_json),
            self._setup.format.fingerprint(),
            versions_of(*DECIDING),
            _code(),
        ]
        return f"{gathered.task.number}-{sha256_of_json(content)[:16]}"

    def _clear(self, folders: list[Path]) -> None:
        """Make the folders; parts of other work are removed."""
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for found in self._folder.iterdir():
            if found.is_dir() and found not in folders:
                shutil.rmtree(found)

    def _check_space(self, sources: list[Gathered]) -> None:
        """Parts that are there already need no more."""
        there = sum(path.stat().st_size for path in self._folder.glob("*/*.arrow"))
        needed = sum(each.expected_bytes for each in sources) - there
        require_space(self._folder.parent, max(0, needed), "Preparing the rows")

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


def task_of(recipe: Recipe, source: Source, settled: Settled, number: int, kind: Kind) -> Task:
    """What the recipe asks of a source, its columns settled."""
    data = recipe.data
    # a question is asked as it was learned
    test = _TEST.model_copy(update={"question_tokens": data.filters.question_tokens})
    usual = {"train": data.filters, "test": test, "general": _GENERAL}[kind]
    return Task(
        number=number,
        dataset=source.dataset,
        columns=settled.columns,
        filters=source.filters or usual,
        max_seq_length=recipe.model.max_seq_length,
        seed=recipe.seed,
        draw_seed=recipe.seed if source.seed is None else source.seed,
        kind=kind,
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


def _bytes_of(columns: Columns, head: Head, records: int) -> int:
    rows = [to_row(columns, record, "", "") for record in head]
    texts = [text for row in rows if isinstance(row, Row) for text in vars(row).values() if text]
    mean = sum(len(text.encode()) for text in texts) / max(1, len(head))
    return round(records * (_BYTES_A_BYTE * mean + _BYTES_A_ROW))


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
