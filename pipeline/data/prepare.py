"""Prepare: read the sources, clean, compare, split, encode, and publish `data/` of the run."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

from pipeline.chat import chat_format
from pipeline.data.choose.compare import select
from pipeline.data.choose.general import rows_for
from pipeline.data.choose.selection import Selection
from pipeline.data.inputs import pinned_in, pins_of, plan, settle
from pipeline.data.work.gather import Gathered, Gatherer, table
from pipeline.data.work.pool import Setup
from pipeline.data.work.worker import Kind, Split
from pipeline.data.write.finish import write_rows
from pipeline.data.write.stats import counts, statistics
from pipeline.data.write.writer import writing
from pipeline.errors import PipeError
from pipeline.recipe import Recipe
from pipeline.run import Emit, Manifest, Note, Run
from pipeline.run.disk import require_space
from pipeline.run.files import write_json

PARTS = ".data.parts"
"""Folder beside the stages, there while a prepare is not finished: it goes on from it."""


def prepare(
    recipe: Recipe, run: Run, emit: Emit, *, force: bool = False, accept: bool = False
) -> Manifest:
    """Write rows, rejects, encoded examples and statistics; nothing where they are up to date.

    A hub name without a revision means the commit that the run's last prepare pinned, so that
    a second one needs no network; `force` asks the hub again. `accept` takes the columns that
    were found in the rows of a dataset that nobody described.
    Raises PipeError where a source cannot be read or gives too few rows.
    """
    begun = perf_counter()
    pins = run.root / PARTS / "pinned.json"
    work = settle(recipe, None if force else run.last("data"), {} if force else pinned_in(pins))
    intended = plan(work, run)
    if not force and run.is_done(intended):
        emit(Note("data is up to date"))
        shutil.rmtree(run.root / PARTS, ignore_errors=True)
        return run.manifest("data") or intended
    parts = run.root / PARTS
    write_json(pins, pins_of(work))
    format = chat_format(recipe.chat.format, thinks=recipe.chat.thinking)
    setup = Setup(work.base.folder / "tokenizer.json", format)
    questions = [question for each in work.benchmarks for question in each.questions()]
    sources = Gatherer(recipe, setup, parts, emit).gather(work.opened(), accept=accept)
    _check_space(run, sources)
    selection = select(sources, recipe, questions, parts)
    for source in sources:
        _check_loss(source, selection)
        _say_cut(source, selection, emit)
    with run.publish("data") as draft:
        draft.timing["before_writing"] = perf_counter() - begun
        with writing(draft.folder) as writer:
            write_rows(sources, selection, writer, setup.encoder(), emit)
        _say_general(recipe, sources, selection, emit)
        _check_rows(recipe, sources, selection, emit)
        write_json(draft.folder / "stats.json", statistics(sources, selection, writer.supervised))
        draft.manifest = replace(
            intended, counts=counts(sources, selection), facts=_facts(intended, sources, selection)
        )
    shutil.rmtree(parts)
    return run.manifest("data") or intended


def _check_space(run: Run, sources: Sequence[Gathered]) -> None:
    """The signatures are copied out of the parts, then lines and ids: no more than the parts."""
    parts = sum(path.stat().st_size for each in sources for path in each.parts)
    require_space(run.root, parts, "Writing the rows")


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
    found: dict[Kind, list[dict[str, Any]]] = {"train": [], "test": [], "general": []}
    for each, fact in zip(sources, read, strict=True):
        found[each.task.kind].append(fact)
    general = found["general"][0] | _general(sources, selection)
    return dict(intended.facts) | {
        # what is trained on has duties, which are looked for there
        "sources": found["train"] + ([general] if general["trained"] else []),
        "test": next(iter(found["test"]), None),
        "general": general,
    }


def _general(sources: Sequence[Gathered], selection: Selection) -> dict[str, Any]:
    """How many general rows are held apart and trained, and their real share of the latter."""
    (number,) = (each.task.number for each in sources if each.task.kind == "general")
    apart = selection.held_apart(number)
    trained = selection.kept(number) - apart
    share = trained / max(1, len(selection.lengths("train")))
    return {"held_apart": apart, "trained": trained, "share": round(share, 4)}


def _say_general(
    recipe: Recipe, sources: Sequence[Gathered], selection: Selection, emit: Emit
) -> None:
    """Says what became of the general rows where there is more to say than that some are apart."""
    found, asked = _general(sources, selection), recipe.data.general_share
    apart, trained = found["held_apart"], found["trained"]
    if not apart:
        text = "no general row is left to see by what training forgets: name other data.general"
        emit(Note(text, warning=True))
    if not asked:
        return
    said = f"{trained} general rows are {found['share']:.1%} of the training rows"
    if trained < rows_for(len(selection.lengths("train")) - trained, asked):
        more = f"{asked:.1%} were asked for: name a larger data.general"
        emit(Note(f"{said}, beside {apart} held apart; {more}", warning=True))
    else:
        emit(Note(f"{said}; {apart} others are held apart to see what it forgets"))


def _say_cut(source: Gathered, selection: Selection, emit: Emit) -> None:
    number = source.task.number
    if cut := selection.cut(number):
        name = source.opened.source.dataset
        emit(Note(f"{name}: {cut} of {selection.kept(number)} rows are cut to fit."))


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
