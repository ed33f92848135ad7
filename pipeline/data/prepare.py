"""Prepare: read the sources, clean, split, encode, and publish `data/` of the run."""

from dataclasses import dataclass, replace

from pipeline.base import Base, open_base
from pipeline.chat import Encoder, chat_format
from pipeline.data.reader import Reader, table
from pipeline.data.sources import Opened, open_source
from pipeline.data.writer import Split, Writer, writing
from pipeline.errors import ChangedInput, PipeError
from pipeline.recipe import Recipe, Source
from pipeline.run import Emit, Manifest, Note, Run, versions_of
from pipeline.run.files import write_json


@dataclass(frozen=True)
class Work:
    """Everything that the result depends on, settled before a row is read."""

    recipe: Recipe
    base: Base
    train: tuple[Opened, ...]
    test: Opened | None

    @property
    def sources(self) -> tuple[Opened, ...]:
        return (*self.train, self.test) if self.test else self.train


def prepare(recipe: Recipe, run: Run, emit: Emit, *, force: bool = False) -> Manifest:
    """Write rows, rejects, encoded examples and statistics; nothing where they are up to date.

    A hub name without a revision means the commit that the run's last prepare pinned, so that
    a second one needs no network; `force` asks the hub again.
    Raises PipeError where a source cannot be read or gives too few rows.
    """
    work = settle(recipe, None if force else _last(run))
    intended = plan(work)
    if not force and run.is_done(intended):
        emit(Note("data is up to date"))
        return run.manifest("data") or intended
    encoder = Encoder(work.base.folder / "tokenizer.json", chat_format(recipe.chat.format))
    with run.publish("data") as draft:
        with writing(draft.folder) as writer:
            reader = Reader(recipe, encoder, writer, emit)
            for number, opened in enumerate(work.sources):
                reader.read(opened, number, is_test=opened is work.test)
        _check_rows(recipe, writer, emit)
        write_json(draft.folder / "stats.json", writer.stats())
        draft.manifest = replace(intended, counts=writer.counts())
    return run.manifest("data") or intended


def settle(recipe: Recipe, last: Manifest | None = None) -> Work:
    """Open the base and every source; a hub name unpinned in the recipe keeps `last`'s commit."""
    base_revision = _base_revision(recipe, last)
    known = _source_revisions(last)
    base = open_base(recipe.model, revision=base_revision, weights=False)
    train = tuple(open_source(source, known.get(source)) for source in recipe.data.sources)
    test = recipe.data.test
    return Work(recipe, base, train, open_source(test, known.get(test)) if test else None)


def plan(work: Work) -> Manifest:
    """The manifest of this work before it is done: no outputs and no counts yet."""
    recipe = work.recipe
    inputs = work.base.tokenizer_entries()
    for number, opened in enumerate(work.train):
        inputs[f"source-{number}/{opened.label}"] = opened.entry
    if work.test:
        inputs[f"test/{work.test.label}"] = work.test.entry
    return Manifest(
        stage="data",
        section={
            "model": recipe.model.model_dump(mode="json"),
            "data": recipe.data.model_dump(mode="json"),
            "chat": recipe.chat.model_dump(mode="json"),
        },
        inputs=inputs,
        chat_format=chat_format(recipe.chat.format).fingerprint(),
        seed=recipe.seed,
        versions=versions_of("datasets", "huggingface_hub", "pyarrow", "tokenizers"),
        facts={
            "base": {"name": work.base.name, "revision": work.base.revision},
            "sources": [opened.facts() for opened in work.train],
            "test": work.test.facts() if work.test else None,
        },
    )


def _check_rows(recipe: Recipe, writer: Writer, emit: Emit) -> None:
    """Raises PipeError without a training row; warns of a split asked for that came out empty."""
    if not writer.rows("train"):
        reasons = table(writer.reasons()) or "nothing was rejected"
        counts = ", ".join(f"{name} {count}" for name, count in writer.counts().items())
        raise PipeError(
            f"No training row is left ({counts}). Rejected: {reasons}.",
            "Name more data, or lower data.eval_share and data.test_share.",
        )
    data = recipe.data
    asked: dict[Split, bool] = {
        "eval": data.eval_share > 0,
        "test": data.test is None and data.test_share > 0,
    }
    for split, wanted in asked.items():
        if wanted and not writer.rows(split):
            emit(Note(f"no row fell to {split}: raise data.{split}_share", warning=True))


def _last(run: Run) -> Manifest | None:
    """What the run's last prepare left, if it can be read."""
    try:
        return run.manifest("data")
    except ChangedInput:
        return None


def _base_revision(recipe: Recipe, last: Manifest | None) -> str | None:
    if last is None:
        return None
    model = last.section["model"]
    same = (model["base"], model["revision"]) == (recipe.model.base, recipe.model.revision)
    return str(revision) if same and (revision := last.facts["base"]["revision"]) else None


def _source_revisions(last: Manifest | None) -> dict[Source, str]:
    """Commit by source as the recipe wrote it."""
    if last is None:
        return {}
    data, facts = last.section["data"], last.facts
    asked = [*data["sources"], data["test"]]
    read = [*facts["sources"], facts["test"]]
    return {
        Source.model_validate(source): fact["revision"]
        for source, fact in zip(asked, read, strict=True)
        if source and fact.get("revision")
    }
