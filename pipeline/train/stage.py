"""The train stage: hand the encoded rows to training processes, publish what they made."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.base import Base
from pipeline.chat import Encoder, chat_format, conversation_of
from pipeline.engines.trained import has_gpu
from pipeline.errors import ChangedInput, PipeError
from pipeline.plans import as_trained, planned
from pipeline.recipe import Recipe
from pipeline.run import Emit, Event, Manifest, Measured, Note, Run, versions_of
from pipeline.run.files import explained_writes
from pipeline.run.rows import read_jsonl
from pipeline.train.job import NAME as JOB_FILE
from pipeline.train.job import Job
from pipeline.train.launch import OUT_OF_MEMORY, Launch
from pipeline.train.logs import write_logs
from pipeline.train.trackers import check_trackers, open_trackers
from pipeline.train.unfinished import FOLDER, Unfinished, unfinished
from pipeline.train.watching import watched


def train(
    recipe: Recipe,
    run: Run,
    base: Base,
    emit: Emit,
    *,
    force: bool = False,
    launch: Launch | None = None,
) -> Manifest:
    """Fine-tune on the run's encoded rows and publish `train/`: weights, metrics and logs.

    Goes on from the newest good checkpoint of a training that was stopped, by whatever.
    Raises PipeError when the rows were encoded for another base, format or length, when another
    training is under way in this run, or when training fails; KeyboardInterrupt when it was
    stopped by a signal, with a checkpoint behind it.
    """
    recipe = _announced(recipe, emit)
    plan = _planned(recipe, run, base)
    _check_rows(recipe, run, base, plan)
    if not force and run.is_done(plan):
        emit(Note("train is up to date."))
        Unfinished(run.root / FOLDER, emit).remove()
        return run.require("train", complete=False)
    work, launch = unfinished(run, plan, emit, force=force), launch or Launch()
    job = _job(recipe, run, base, work, launch)
    with _tracked(work, run, plan, recipe.train.trackers) as told, explained_writes(str(run.root)):
        result = _trained(job, replace(work, emit=told), launch)
    _publish(run, work, plan, result)
    facts = result["facts"]
    emit(Note(f"Trained {facts['steps']} steps, final loss {facts['final_loss']:.4f}."))
    return run.require("train")


def check_device(recipe: Recipe) -> None:
    """Raises PipeError where the recipe wants a GPU and no driver is here, before any download.

    The child asks torch itself; this look costs nothing.
    """
    if recipe.train.device == "cuda" and not has_gpu():
        raise PipeError(
            f"The recipe {recipe.name} trains on a GPU and this machine has no driver for one.",
            "On a CPU the shipped demo runs: pipe run -r demo. What is missing: pipe doctor",
        )


@contextmanager
def _tracked(work: Unfinished, run: Run, plan: Manifest, names: Sequence[str]) -> Iterator[Emit]:
    """An Emit that tells the trackers too, whose files lie in the run's `tracking/`."""
    resumed = work.checkpoints.exists()
    with open_trackers(
        names, run.root / "tracking", run.name, plan.section, work.emit, resumed=resumed
    ) as trackers:

        def told(event: Event) -> None:
            work.emit(event)
            if isinstance(event, Measured):
                trackers.log(event.step, event.values)

        yield told


def _publish(run: Run, work: Unfinished, plan: Manifest, result: dict[str, Any]) -> None:
    with run.publish("train") as draft:
        for made in (work.folder / "result").iterdir():
            made.rename(draft.folder / made.name)
        write_logs(draft.folder, result, work.speeds())
        draft.timing |= {f"{name}_seconds": value for name, value in result["seconds"].items()}
        facts = result["facts"]
        draft.manifest = replace(plan, counts={"steps": facts["steps"]}, facts=facts)
    work.remove()


def _announced(recipe: Recipe, emit: Emit) -> Recipe:
    """The recipe as this machine can do it; what is done otherwise is said."""
    train = recipe.train
    check_trackers(train.trackers)
    if train.method != "full" and train.lora.dora and train.device == "cuda":
        emit(Note("lora.dora is on: Unsloth's fused LoRA kernels are not used.", True))
    if (done := as_trained(train)) is train:
        return recipe
    emit(
        Note(
            "Packed rows need a GPU's attention kernels to keep them apart: on this CPU, rows of "
            "like length share a batch instead (train.batching: grouped).",
            warning=True,
        )
    )
    return recipe.model_copy(update={"train": done})


def _check_rows(recipe: Recipe, run: Run, base: Base, plan: Manifest) -> None:
    """Other ids than the base's, or longer rows than asked, would train without a word."""
    data = run.manifest("data")
    assert data is not None
    data.check_inputs(base.tokenizer_entries(), "Encode for this base: pipe prepare")
    longest = data.section["model"]["max_seq_length"]
    if data.chat_format != plan.chat_format or longest != recipe.model.max_seq_length:
        raise ChangedInput(
            f"{run.folder('data')} was encoded for another chat format or length.",
            "Encode again: pipe prepare",
        )


def _planned(recipe: Recipe, run: Run, base: Base) -> Manifest:
    return replace(
        planned("train", recipe, run),
        inputs=base.entries() | run.input_entry("data"),
        versions=versions_of(
            "unsloth", "unsloth_zoo", "torch", "transformers", "trl", "peft", "bitsandbytes"
        ),
    )


def _job(recipe: Recipe, run: Run, base: Base, work: Unfinished, launch: Launch) -> Job:
    train, data = recipe.train, run.folder("data").resolve()
    encoder = Encoder(
        base.folder / "tokenizer.json", chat_format(recipe.chat.format, thinks=recipe.chat.thinking)
    )
    encoded = {name: data / "encoded" / f"{name}.arrow" for name in ("train", "eval", "general")}
    return Job(
        base=str(base.folder.resolve()),
        base_name=base.name,
        base_revision=base.revision,
        config=base.config,
        max_seq_length=recipe.model.max_seq_length,
        train=train,
        seed=recipe.seed,
        pad_id=encoder.pad_id,
        end_ids=tuple(sorted(encoder.end_ids)),
        chat_template=encoder.format.jinja,
        rows=str(data / "train.jsonl"),
        encoded={name: str(path) for name, path in encoded.items() if path.exists()},
        samples=_samples(recipe, encoder, data / "eval.jsonl"),
        folder=str(work.folder.resolve()),
        batch_size=work.batch_size(train.batch_size),
        global_batch=work.global_batch(
            train.batch_size * train.gradient_accumulation * launch.processes
        ),
    )


def _samples(recipe: Recipe, encoder: Encoder, rows: Path) -> list[dict[str, Any]]:
    """The first eval rows as prompts, where answers aloud are asked for."""
    if recipe.train.sample_every is None:
        return []
    asked = []
    for row in islice(read_jsonl(rows), recipe.train.sample_rows):
        prompt = encoder.prompt(conversation_of(row))
        asked.append({"question": row["question"], "prompt_ids": prompt})
    return asked


def _trained(job: Job, work: Unfinished, launch: Launch) -> dict[str, Any]:
    """The result of the training, however often memory runs out on the way.

    Raises KeyboardInterrupt where it was stopped.
    """
    while True:
        asked = replace(job, resume=work.resume())
        result = watched(asked.write(work.folder / JOB_FILE), asked, work, launch)
        if result["status"] == "done":
            return result
        if result["status"] == "stopped":
            step = result["step"]
            work.emit(Note(f"Stopped after step {step}; to go on from there: pipe train"))
            raise KeyboardInterrupt
        job = _smaller(job, work, result["reason"])


def _smaller(job: Job, work: Unfinished, reason: str) -> Job:
    """The same training in micro-batches of half as many rows. Raises PipeError below one."""
    if job.batch_size == 1:
        raise PipeError(f"Memory ran out with one row at a time: {reason}", OUT_OF_MEMORY)
    rows = next(n for n in range(job.batch_size // 2, 0, -1) if job.global_batch % n == 0)
    work.keep_batch_size(rows)
    work.emit(
        Note(
            f"Memory ran out with {job.batch_size} rows at a time ({reason}). "
            f"Going on with {rows}; a step still takes {job.global_batch} rows.",
            warning=True,
        )
    )
    return replace(job, batch_size=rows)
