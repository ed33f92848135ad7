"""`pipe eval`: every task put to every engine, before and after, with 95% intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

from pipeline.base import Base
from pipeline.chat import Encoder, chat_format
from pipeline.engines.completion import Decoding
from pipeline.engines.contenders import (
    Contender,
    check_there,
    contenders,
    reads_export,
    taken_name,
)
from pipeline.engines.trained import TUNED, Trained, trained
from pipeline.errors import PipeError, ServerFailed
from pipeline.evaluate.ask import BATCHES, Asked, Outcome, ask, own_replies, session
from pipeline.evaluate.items import Item, without_unreadable
from pipeline.evaluate.kept import Kept
from pipeline.evaluate.metrics import Metric, all_metrics
from pipeline.evaluate.publish import Findings, write_findings
from pipeline.evaluate.shared import Shared, base_key
from pipeline.evaluate.tasks import Opener, Task, open_tasks
from pipeline.plans import planned, served
from pipeline.recipe import Recipe
from pipeline.recipe.metrics import deciding_metric
from pipeline.run import Emit, Manifest, Note, Run, describe, versions_of
from pipeline.run.files import explained_writes, sha256_of_json
from pipeline.run.folder import NEEDS

_DECIDING = ("torch", "transformers", "peft", "bitsandbytes", "llama-cpp-python", "math-verify")


@dataclass(frozen=True)
class Means:
    """What the stage is given beside the recipe."""

    opener: Opener
    """Reads files and hub datasets."""
    metric_files: tuple[Path, ...] = ()
    """Python files with a function `metric`, named on the command line."""
    force: bool = False
    """Ask everything anew, but what `shared` holds."""
    shared: Path | None = None
    """A folder where runs of the same base keep its answers for one another."""


@dataclass(frozen=True)
class _Plan:
    """What is to be done, settled before any work."""

    recipe: Recipe
    run: Run
    emit: Emit
    encoder: Encoder
    trained: Trained
    engines: list[Contender]
    tasks: list[Task]
    metrics: tuple[Metric, ...]
    manifest: Manifest

    @property
    def names(self) -> list[str]:
        return [engine.name for engine in self.engines]


def evaluate(recipe: Recipe, run: Run, base: Base, emit: Emit, means: Means) -> Manifest:
    """Score every engine of the run and publish `eval/`.

    results.json, answers.jsonl and, apart because it holds times, speed.json. An eval that was
    interrupted goes on where it was. Raises PipeError when there is nothing to ask, no engine
    answered, or a stage before it is missing or changed.
    """
    run.require("data")
    run.require("train", complete=False)
    plan = _planned(recipe, run, base, emit, means)
    # scores that hold Ollama's too stay good while its server is away
    with_served = _with_engines(run, plan.manifest, _served_too(plan.names))
    if not means.force and (run.is_done(plan.manifest) or run.is_done(with_served)):
        emit(Note("eval is up to date."))
        return run.require("eval")
    check_there(run, plan.names)
    _announce_differences(plan)
    started, kept = perf_counter(), Kept(run.root)
    asked = [_asked(plan, task, kept) for task in plan.tasks]
    with explained_writes("eval"):
        if means.force:
            kept.clear()
        kept.keep_pins(_pins(plan.tasks))
        shared = Shared(means.shared, [(each, _base_key(plan, each)) for each in asked])
        shared.take()
        outcomes = _outcomes(plan, asked)
        shared.give()
        manifest = _with_engines(run, plan.manifest, list(outcomes))
        with run.publish("eval") as draft:
            findings = Findings(
                asked,
                outcomes,
                plan.metrics,
                recipe.export.quantize,
                recipe.seed,
                deciding_metric(recipe),
            )
            write_findings(draft.folder, findings)
            draft.timing["seconds"] = perf_counter() - started
            draft.manifest = replace(manifest, counts=_counts(asked))
        kept.clear(but=[each.folder for each in asked])
    return run.require("eval")


def _planned(recipe: Recipe, run: Run, base: Base, emit: Emit, means: Means) -> _Plan:
    encoder = Encoder(
        base.folder / "tokenizer.json", chat_format(recipe.chat.format, thinks=recipe.chat.thinking)
    )
    engines = contenders(recipe, run, base, encoder)
    tuned = trained(recipe, run, base)
    _announce_engines(recipe, run, tuned, emit)
    metrics = all_metrics(recipe.eval.metrics, means.metric_files)
    pins = {} if means.force else _recorded(run)
    tasks = open_tasks(recipe.eval.tasks, run, means.opener, pins)
    inputs = base.entries()
    for stage in NEEDS["eval"]:
        if stage != "export" or reads_export(recipe):
            inputs |= run.input_entry(stage)
    for task in tasks:
        inputs |= task.entries
    inputs |= {f"metric/{path.name}": describe(path) for path in means.metric_files}
    asked = planned("eval", recipe, run)
    manifest = replace(
        asked,
        section={**asked.section, "method": tuned.method},
        inputs=inputs,
        versions=versions_of(*_DECIDING, "rouge-score", "sacrebleu"),
        facts={
            "tasks": {task.name: dict(task.facts) for task in tasks},
            # of Transformers; the recipe's may not be here
            "device": tuned.device,
        },
    )
    manifest = _with_engines(run, manifest, [engine.name for engine in engines])
    return _Plan(recipe, run, emit, encoder, tuned, engines, tasks, metrics, manifest)


def _announce_engines(recipe: Recipe, run: Run, tuned: Trained, emit: Emit) -> None:
    """Say which engines that a run has by rule this one has not."""
    asked = recipe.eval.engines
    if not asked and (taken := taken_name(run)):
        emit(Note(f"ollama is left out: {taken} is another run's model now. See: pipe register"))
    if tuned.is_full and not asked:
        emit(Note(f"merged is left out: trained in full, `{TUNED}` is the tuned model itself."))


def _announce_differences(plan: _Plan) -> None:
    if {"base", TUNED, "merged"} & set(plan.names):
        for difference in plan.trained.differences():
            plan.emit(Note(difference, warning=True))


def _with_engines(run: Run, plan: Manifest, engines: list[str]) -> Manifest:
    """The same plan for these engines; nothing is hashed again."""
    section = {key: value for key, value in plan.section.items() if key != "served"}
    if "ollama" in engines:
        section["served"] = served(run)
    return replace(plan, section={**section, "engines": engines})


def _served_too(names: list[str]) -> list[str]:
    """The engines with Ollama in its place, which is before an endpoint."""
    others = [name for name in names if name not in ("ollama", "endpoint")]
    return [*others, "ollama", *(["endpoint"] if "endpoint" in names else [])]


def _recorded(run: Run) -> dict[str, str]:
    """The commits that the last eval read, and those of one that was interrupted."""
    last = run.last("eval")
    found = {
        facts["asked"]: facts["revision"]
        for facts in (last.facts.get("tasks", {}) if last else {}).values()
        if facts.get("asked")
    }
    return found | Kept(run.root).pins()


def _pins(tasks: Sequence[Task]) -> dict[str, str]:
    facts = [task.facts for task in tasks]
    return {fact["asked"]: fact["revision"] for fact in facts if fact.get("asked")}


def _asked(plan: _Plan, task: Task, kept: Kept) -> Asked:
    """Read the task's questions; what cannot be graded or scored is announced."""
    asked = plan.recipe.eval
    read = task.items(asked.limit)
    items, unreadable = without_unreadable(read)
    _announce_ungraded(plan, task.name, items, unreadable)
    own = own_replies(plan.encoder, items, plan.recipe.num_ctx)
    _announce_long(plan, task.name, items, len(own))
    top_p = asked.top_p if asked.temperature else 1.0
    return Asked(
        name=task.name,
        items=items,
        own=own,
        folder=kept.part(task.name, _key(plan, task)),
        decoding=Decoding(asked.max_new_tokens, asked.temperature, top_p, plan.recipe.seed),
        samples=asked.samples,
        leg=BATCHES * asked.batch_size,
        marks={"ollama": sha256_of_json(served(plan.run))[:16]},
    )


def _announce_ungraded(plan: _Plan, name: str, items: Sequence[Item], unreadable: int) -> None:
    """Both kinds apart: a reference may be mended, an answer in prose may not."""
    bare = sum(item.reference is None for item in items) - unreadable
    if unreadable:
        plan.emit(
            Note(
                f"{name}: {unreadable} of {len(items)} references cannot be read by "
                "math-verify; those questions are left out of exact match, not counted as wrong.",
                warning=True,
            )
        )
    if bare:
        plan.emit(
            Note(
                f"{name}: {bare} of {len(items)} questions have no reference, nor an answer that "
                "is a number, a box or a few words; they are left out of exact match."
            )
        )


def _announce_long(plan: _Plan, name: str, items: Sequence[Item], scored: int) -> None:
    with_reply = sum(item.exchange is not None for item in items)
    if scored < with_reply:
        plan.emit(
            Note(
                f"{name}: {with_reply - scored} of {with_reply} rows are longer than the context "
                f"of {plan.recipe.num_ctx} tokens and are left out of perplexity.",
                warning=True,
            )
        )


def _key(plan: _Plan, task: Task) -> str:
    """A hash of all that the answers to a task hang on: not the metrics, nor other tasks.

    What Ollama serves is no part of it: another model there asks Ollama alone anew.
    """
    manifest, asked = plan.manifest, plan.recipe.eval
    inputs = {n: e for n, e in manifest.inputs.items() if not n.startswith(("task/", "metric/"))}
    content = {name: asdict(entry) for name, entry in (inputs | dict(task.entries)).items()}
    how = asked.model_dump(mode="json", exclude={"tasks", "engines", "metrics"})
    opened = plan.trained
    how |= {"num_ctx": plan.recipe.num_ctx, "method": opened.method, "device": opened.device}
    words = [content, how, manifest.chat_format, manifest.seed, manifest.versions]
    return sha256_of_json(words)


def _base_key(plan: _Plan, asked: Asked) -> str:
    """The same for the base alone, whatever was trained on it."""
    manifest = plan.manifest
    device = {"device": plan.trained.device, "versions": manifest.versions}
    return base_key(asked, manifest.inputs, device | {"chat": manifest.chat_format})


def _outcomes(plan: _Plan, asked: Sequence[Asked]) -> dict[str, Mapping[str, Outcome]]:
    """Engine -> task -> outcome; a server that goes away leaves its engine out of all tasks."""
    found: dict[str, Mapping[str, Outcome]] = {}
    for contender in plan.engines:
        try:
            with session(contender, plan.encoder, plan.emit) as here:
                found[here.name] = {each.name: ask(here, each) for each in asked}
        except ServerFailed as error:
            plan.emit(Note(f"{contender.shown} is left out: {error.message}", warning=True))
    if not found:
        raise PipeError("No engine answered, so there is nothing to score.", "Run: pipe eval")
    return found


def _counts(asked: Sequence[Asked]) -> dict[str, int]:
    """Questions of each task, and those of them that are graded."""
    counts: dict[str, int] = {}
    for each in asked:
        counts[each.name] = len(each.items)
        counts[f"{each.name} graded"] = sum(i.reference is not None for i in each.items)
    return counts
