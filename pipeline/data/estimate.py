"""What prepare would read, before it does: licences, rows, tokens."""

from dataclasses import dataclass
from typing import Any

from pipeline.chat import Encoder
from pipeline.data.read.columns import settle_columns
from pipeline.data.read.registry import registered
from pipeline.data.read.sources import Opened, is_local, open_source, place_of
from pipeline.data.work.gather import task_of
from pipeline.data.work.worker import Worker
from pipeline.errors import PipeError
from pipeline.recipe import Recipe, Source


@dataclass(frozen=True)
class Expected:
    """One source as far as it can be known without preparing it."""

    dataset: str
    config: str | None
    split: str | None
    licence: str | None
    """None where nobody has said."""
    duties: tuple[str, ...]
    """What a model trained on it must keep to."""
    rows: int | None
    """Records that would be read."""
    tokens_per_row: float | None
    """Mean over the first rows that hold."""
    tokens: int | None
    columns: str | None
    """How its columns are known: recipe, registry, known columns or detected."""
    problem: str | None
    """What stands in the way, with the next step."""


def expected(recipe: Recipe, encoder: Encoder, *, accept: bool) -> list[Expected]:
    """Every source of the recipe, the test file last; reads its first rows only."""
    sources = [*recipe.data.sources, *([recipe.data.test] if recipe.data.test else [])]
    return [_expected(recipe, each, encoder, accept) for each in sources]


def _expected(recipe: Recipe, source: Source, encoder: Encoder, accept: bool) -> Expected:
    known = None if is_local(source.dataset) else registered(source)
    place = None if is_local(source.dataset) else place_of(source)
    facts: dict[str, Any] = {
        "dataset": source.dataset,
        "config": place.config if place else None,
        "split": place.split if place else None,
        "licence": known.licence if known else None,
        "duties": tuple(known.duties) if known else (),
    }
    rows, tokens, columns, problem = known.rows if known else None, None, None, None
    try:
        opened = open_source(source)
        rows = opened.total()
        columns, tokens = _sampled(recipe, opened, encoder, accept)
    except PipeError as error:
        problem = str(error)
    if rows is not None and source.limit:
        rows = min(rows, source.limit)
    return Expected(
        **facts,
        rows=rows,
        tokens_per_row=tokens,
        tokens=round(tokens * rows) if tokens and rows else None,
        columns=columns,
        problem=problem,
    )


def _sampled(
    recipe: Recipe, opened: Opened, encoder: Encoder, accept: bool
) -> tuple[str, float | None]:
    """How the columns are known, and the mean length of the first rows' examples."""
    head = opened.head()
    settled = settle_columns(opened.source, head, accept=accept)
    task = task_of(recipe, opened.source, settled, 0, is_test=False)
    worker = Worker(encoder, task)
    lengths = worker.lengths([(f"row {n}", record) for n, record in enumerate(head, 1)])
    return settled.origin, round(sum(lengths) / len(lengths), 1) if lengths else None
