"""Prepare: read the sources, clean, compare, split, encode, and publish `data/` of the run."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.base import Base, open_base
from pipeline.chat import chat_format
from pipeline.data.choose.compare import select
from pipeline.data.choose.selection import Selection
from pipeline.data.read.benchmarks import HeldOut, open_benchmark
from pipeline.data.read.sources import Opened, open_source
from pipeline.data.work.gather import DECIDING, Gathered, Gatherer, table
from pipeline.data.work.pool import Setup
from pipeline.data.work.worker import Split
from pipeline.data.write.finish import write_rows
from pipeline.data.write.stats import counts, statistics
from pipeline.data.write.writer import writing
from pipeline.errors import ChangedInput, PipeError
from pipeline.recipe import Recipe
from pipeline.run import Emit, Manifest, Note, Run, versions_of
from pipeline.run.files import write_json

PARTS = ".data.parts"
"""Folder beside the stages, there while a prepare is not finished: it goes on from it."""


@dataclass(frozen=True)
class Inputs:
    """Everything that the result depends on, settled before a row is read."""

    recipe: Recipe
    base: Base
    train: tuple[Opened, ...]
    test: Opened | None
    benchmarks: tuple[HeldOut, ...]


def prepare(
    recipe: Recipe, run: Run, emit: Emit, *, force: bool = False, accept: bool = False
) -> Manifest:
    """Write rows, rejects, encoded examples and statistics; nothing where they are up to date.

    A hub name without a revision means the commit that the run's last prepare pinned, so that
    a second one needs no network; `force` asks the hub again. `accept` takes the columns that
    were found in the rows of a dataset that nobody described.
    Raises PipeError where a source cannot be read or gives too few rows.
    """
    work = settle(recipe, None if force else _last(run))
    intended = plan(work)
    if not force and run.is_done(intended):
        emit(Note("data is up to date"))
        shutil.rmtree(run.root / PARTS, ignore_errors=True)
        return run.manifest("data") or intended
    parts = run.root / PARTS
    setup = Setup(work.base.folder / "tokenizer.json", recipe.chat.format)
    questions = [question for each in work.benchmarks for question in each.questions()]
    sources = Gatherer(recipe, setup, parts, emit).gather(work.train, work.test, accept=accept)
    selection = select(sources, recipe, questions, parts)
    for source in sources:
        _check_loss(source, selection)
    with run.publish("data") as draft:
        with writing(draft.folder) as writer:
            write_rows(sources, selection, writer, emit)
        _check_rows(recipe, sources, selection, emit)
        write_json(draft.folder / "stats.json", statistics(sources, selection, writer.supervised))
        draft.manifest = replace(
            intended, counts=counts(sources, selection), facts=_facts(intended, sources, selection)
        )
    shutil.rmtree(parts)
    return run.manifest("data") or intended


def settle(recipe: Recipe, last: Manifest | None = None) -> Inputs:
    """Open the base and every source; a hub name unpinned in the recipe keeps `last`'s commit."""
    base = open_base(recipe.model, revision=_base_revision(recipe, last), weights=False)
    known = _revisions(last)
    data = recipe.data
    return Inputs(
        recipe,
        base,
        tuple(open_source(each, known.get(_asked(each))) for each in data.sources),
        open_source(data.test, known.get(_asked(data.test))) if data.test else None,
        tuple(open_benchmark(each, known.get(_asked(each))) for each in data.decontaminate),
    )


def plan(work: Inputs) -> Manifest:
    """The manifest of this work before it is done: no outputs and no counts yet."""
    recipe = work.recipe
    inputs = work.base.tokenizer_entries()
    for number, opened in enumerate(work.train):
        inputs[f"source-{number}/{opened.label}"] = opened.entry
    if work.test:
        inputs[f"test/{work.test.label}"] = work.test.entry
    for number, each in enumerate(work.benchmarks):
        inputs[f"benchmark-{number}/{each.opened.label}"] = each.opened.entry
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
        versions=versions_of(*DECIDING, "datasets", "huggingface_hub", "pyarrow"),
        facts={
            "base": {"name": work.base.name, "revision": work.base.revision},
            "sources": [opened.facts() for opened in work.train],
            "test": work.test.facts() if work.test else None,
            "decontaminate": [each.facts() for each in work.benchmarks],
        },
    )


def _facts(intended: Manifest, sources: Sequence[Gathered], selection: Selection) -> dict[str, Any]:
    """With the columns that were really read, and how many rows came of it."""
    read = [
        each.opened.facts()
        | {
            "rows": selection.kept(each.task.number),
            "columns": each.settled.columns.model_dump(mode="json", exclude_defaults=True),
            "columns_from": each.settled.origin,
        }
        for each in sources
    ]
    kinds = [each.task.is_test for each in sources]
    return dict(intended.facts) | {
        "sources": [fact for fact, is_test in zip(read, kinds, strict=True) if not is_test],
        "test": read[-1] if any(kinds) else None,
    }


def _check_loss(source: Gathered, selection: Selection) -> None:
    """Raises PipeError where a source gives nothing, or loses more than the recipe allows."""
    records, rejects = source.tally.records, selection.rejects(source)
    count, allowed = rejects.total(), source.opened.source.max_loss
    if records and count <= records * allowed:
        return
    name = source.opened.source.dataset
    if not records:
        raise PipeError(f"{name} holds no row at all.", "Name another source, config or split.")
    commonest = rejects.most_common(1)[0][0]
    raise PipeError(
        f"{count} of {records} rows of {name} are rejected: "
        f"{table(rejects, selection.first(source))}.",
        f"{_CURES.get(commonest, 'Look at the rows named, or take another source or config.')} "
        "To allow it: max_loss of that source. The work so far is kept.",
    )


_CURES = {
    "too_long": "Raise model.max_seq_length, set data.filters.over_long=truncate, or take another "
    "source.",
    "duplicate_question": "To keep several replies to a question: data.dedupe.questions=keep.",
    "near_duplicate": "To compare questions less strictly: data.dedupe.questions=exact.",
    "refuted": "Look at the rows named; to take them all the same: data.filters.verify=false.",
    "wrong_language": "Set data.filters.languages to those you want.",
}


def _check_rows(recipe: Recipe, sources: list[Gathered], selection: Selection, emit: Emit) -> None:
    """Raises PipeError without a training row; warns of a split asked for that came out empty."""
    found = counts(sources, selection)
    if not found["train"]:
        rejects = [selection.rejects(each) for each in sources]
        reasons = table(sum(rejects[1:], rejects[0])) or "nothing was rejected"
        shown = ", ".join(f"{name} {count}" for name, count in found.items())
        raise PipeError(
            f"No training row is left ({shown}). Rejected: {reasons}.",
            "Name more data, or lower data.eval_share and data.test_share.",
        )
    data = recipe.data
    asked: dict[Split, bool] = {
        "eval": data.eval_share > 0,
        "test": data.test is None and data.test_share > 0,
    }
    for split, wanted in asked.items():
        if wanted and not found[split]:
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


def _revisions(last: Manifest | None) -> dict[str, str]:
    """Commit by what the recipe asked for."""
    if last is None:
        return {}
    data, facts = last.section["data"], last.facts
    asked = [*data["sources"], data["test"], *data["decontaminate"]]
    read = [*facts["sources"], facts["test"], *facts["decontaminate"]]
    return {
        _place(source): fact["revision"]
        for source, fact in zip(asked, read, strict=True)
        if source and fact.get("revision")
    }


def _asked(source: Any) -> str:
    return _place(source.model_dump(mode="json"))


def _place(source: dict[str, Any]) -> str:
    return json.dumps([source[key] for key in ("dataset", "config", "split", "revision")])
