"""`pipe eval`: the test rows put to every engine, before and after, with 95% intervals."""

import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from pipeline.answers import exact_match
from pipeline.base import Base
from pipeline.chat import Encoder, chat_format, conversation_of
from pipeline.engines.completion import Completion, Decoding, Engine
from pipeline.engines.contenders import Contender, contenders
from pipeline.errors import OllamaRefused, OllamaUnreachable
from pipeline.evaluate.grade import wilson
from pipeline.recipe import Recipe
from pipeline.run import Emit, Manifest, Note, Progress, Run, versions_of
from pipeline.run.files import write_json
from pipeline.run.rows import held_out_rows

Row = dict[str, Any]


def evaluate(recipe: Recipe, run: Run, base: Base, emit: Emit, *, force: bool = False) -> Manifest:
    """Score every engine of the run and publish `eval/`: results.json and answers.jsonl.

    Raises PipeError when there is no test row, or a stage before it is missing or changed.
    """
    run.require("data")
    run.require("train")
    encoder = Encoder(base.folder / "tokenizer.json", chat_format(recipe.chat.format))
    engines = contenders(recipe, run, base, encoder)
    names = [engine.name for engine in engines]
    plan = _planned(recipe, run, base, names)
    # scores that hold Ollama's too stay good while its server is away
    served_too = _with_engines(plan, [*names, "ollama"])
    if not force and (run.is_done(plan) or run.is_done(served_too)):
        emit(Note("eval is up to date."))
        return run.require("eval")
    rows = held_out_rows(run, recipe.eval.limit)
    with run.publish("eval") as draft:
        results: dict[str, Any] = {}
        for contender in engines:
            started = perf_counter()
            try:
                completions = _ask(contender, rows, recipe.eval.max_new_tokens, emit)
            except (OllamaUnreachable, OllamaRefused) as error:
                emit(Note(f"{contender.name} is left out: {error.message}", warning=True))
                plan = _with_engines(plan, [n for n in names if n != contender.name])
                continue
            draft.timing[contender.name] = perf_counter() - started
            results[contender.name] = _scores(rows, completions)
            _keep_answers(draft.folder / "answers.jsonl", contender.name, rows, completions)
        write_json(draft.folder / "results.json", {"items": len(rows), "engines": results})
        draft.manifest = plan
    return run.require("eval")


def _with_engines(plan: Manifest, engines: list[str]) -> Manifest:
    """The same plan for other engines; nothing is hashed again."""
    return replace(plan, section={**plan.section, "engines": engines})


def _planned(recipe: Recipe, run: Run, base: Base, engines: list[str]) -> Manifest:
    return Manifest(
        stage="eval",
        section={
            "eval": recipe.eval.model_dump(mode="json"),
            "engines": engines,
        },
        inputs=base.entries()
        | run.input_entry("data")
        | run.input_entry("train")
        | run.input_entry("export"),
        chat_format=chat_format(recipe.chat.format).fingerprint(),
        seed=recipe.seed,
        versions=versions_of("torch", "transformers", "peft", "bitsandbytes", "llama-cpp-python"),
    )


def _ask(contender: Contender, rows: list[Row], limit: int, emit: Emit) -> list[Completion]:
    """All replies of one engine, in the rows' order."""
    task = f"eval {contender.name}"
    emit(Progress(task, 0, len(rows), "questions"))
    engine: Engine = contender.open()
    completions: list[Completion] = []
    right = 0
    try:
        chats = [conversation_of(row) for row in rows]
        for row, done in zip(rows, engine.answers(chats, Decoding(limit)), strict=True):
            completions.append(done)
            right += exact_match(done.reply.answer, reference(row))
            figures = {"right": f"{right / len(completions):.1%}"}
            emit(Progress(task, len(completions), len(rows), "questions", figures))
    finally:
        engine.close()
    return completions


def reference(row: Row) -> str:
    """What the answer is held against: the row's reference, else its own answer."""
    return str(row.get("reference") or row["answer"])


def _scores(rows: list[Row], completions: list[Completion]) -> dict[str, Any]:
    items = len(rows)
    pairs = list(zip(rows, completions, strict=True))
    right = sum(exact_match(c.reply.answer, reference(row)) for row, c in pairs)
    whole = sum(c.stopped and c.reply.well_formed for c in completions)
    cut = sum(not c.stopped for c in completions)
    return {
        "exact_match": wilson(right, items).as_json(),
        "well_formed": wilson(whole, items).as_json(),
        "truncated": wilson(cut, items).as_json(),
        "mean_tokens": round(sum(c.tokens for c in completions) / items, 2),
    }


def _keep_answers(path: Path, engine: str, rows: list[Row], completions: list[Completion]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for row, done in zip(rows, completions, strict=True):
            kept = {
                "engine": engine,
                "id": row["id"],
                "text": done.text,
                "right": exact_match(done.reply.answer, reference(row)),
                "well_formed": done.reply.well_formed,
                "stopped": done.stopped,
            }
            file.write(json.dumps(kept, ensure_ascii=False, sort_keys=True) + "\n")
