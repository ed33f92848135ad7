"""What prepare would read, before it does: licences, rows, tokens."""

from dataclasses import dataclass, replace

from pipeline.card.licences import of_data
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
    local: bool
    """Whether it is a file."""
    licence: str | None = None
    """None where nobody has said."""
    duties: tuple[str, ...] = ()
    """What a model trained on it must keep to."""
    rows: int | None = None
    """Records that would be read."""
    tokens_per_row: float | None = None
    """Mean over the first rows that pass the filters."""
    tokens: int | None = None
    """In all, as many rows passing as of the first ones."""
    columns: str | None = None
    """How its columns are known: recipe, registry, known columns or detected."""
    problem: str | None = None
    """What stands in the way, with the next step."""


def expected(recipe: Recipe, encoder: Encoder, *, accept: bool) -> list[Expected]:
    """Every source that the recipe names, test and general rows last; reads first rows only."""
    data = recipe.data
    sources = [*data.sources, *filter(None, (data.test, data.general))]
    return [_expected(recipe, each, encoder, accept) for each in sources]


def _expected(recipe: Recipe, source: Source, encoder: Encoder, accept: bool) -> Expected:
    local = is_local(source.dataset)
    found = Expected(source.dataset, source.config, source.split, local)
    try:
        if local:
            found = replace(found, licence=of_data({"dataset": source.dataset}) or None)
        else:
            found = _named(found, source)
        opened = open_source(source)
        found = replace(found, rows=opened.total())
        return _sampled(found, recipe, opened, encoder, accept)
    except PipeError as error:
        return replace(found, problem=str(error))


def _named(found: Expected, source: Source) -> Expected:
    """With what the registry knows."""
    place, known = place_of(source), registered(source)
    found = replace(found, config=place.config, split=place.split)
    if known is None:
        return found
    rows = min(known.rows, source.limit or known.rows) if known.rows else None
    return replace(found, licence=known.licence, duties=tuple(known.duties), rows=rows)


def _sampled(
    found: Expected, recipe: Recipe, opened: Opened, encoder: Encoder, accept: bool
) -> Expected:
    """With how the columns are known, and the tokens that the first records let expect."""
    head = opened.head()
    settled = settle_columns(opened.source, head, accept=accept)
    task = task_of(recipe, opened.source, settled, 0, "train")
    records = [(f"row {n}", record) for n, record in enumerate(head, 1)]
    lengths = Worker(encoder, task).lengths(records)
    found = replace(found, columns=settled.origin)
    if not lengths:
        return found
    tokens = None if found.rows is None else round(found.rows * sum(lengths) / len(head))
    return replace(found, tokens_per_row=round(sum(lengths) / len(lengths), 1), tokens=tokens)
