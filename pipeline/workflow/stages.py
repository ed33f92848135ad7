"""The stages in order. They meet on disk; this is where they are called one after the other."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base import Base, base_at
from pipeline.chat import ChatFormat, chat_format
from pipeline.errors import FreedInput, OllamaUnreachable, PipeError
from pipeline.plans import planned
from pipeline.recipe import Recipe
from pipeline.run import Emit, Manifest, Note, describe
from pipeline.run.files import explained_writes
from pipeline.run.freed import restore_files
from pipeline.workflow.work import Work

if TYPE_CHECKING:
    from pipeline.gguf.job import Job
    from pipeline.train.launch import Launch


def prepare(work: Work) -> Manifest:
    """The rows, and a picture of them beside the stage."""
    from pipeline.data import prepare as stage
    from pipeline.report import draw_data, picture_of_data

    with work.run.lock():
        work.keep()
        before = work.run.last("data")
        made = stage(work.recipe, work.run, work.emit, force=work.force, accept=work.accept)
        # the same manifest holds the same statistics
        if made != before or not picture_of_data(work.run).exists():
            draw_data(work.run)
        return made


def expected(work: Work) -> list[Any]:
    """What prepare would read, source by source; asks the hub for the first rows only."""
    from pipeline.data import expected as look

    return look(work.recipe, work.encoder(), accept=work.accept)


def examples(work: Work, count: int) -> list[Any]:
    """The first training rows as the model sees them."""
    from pipeline.data import shown

    return list(shown(work.run, work.encoder(), count))


def train(work: Work, launch: "Launch | None" = None) -> Manifest:
    from pipeline.train import check_device
    from pipeline.train import train as stage

    check_device(work.recipe)
    with work.run.lock():
        work.keep()
        work.run.require("data")
        return stage(work.recipe, work.run, work.base(), work.emit, force=work.force, launch=launch)


def take_part(work: Work, launch: "Launch") -> None:
    """Train on this node beside node 0, which does the stage in the same run folder."""
    from pipeline.train import check_device
    from pipeline.train.watching import joined

    check_device(work.recipe)
    joined(work.run, work.recipe.train, work.emit, launch)


def export(work: Work, *, freed: bool = False) -> Manifest:
    """Merge, quantize, write the Modelfile. Registration is a step of its own.

    A run that was trained in full has nothing to merge: its model is quantized as it is.
    With `freed`, files that `pipe clean` freed are made again.
    """
    from pipeline.engines.trained import trained
    from pipeline.gguf.export import export as stage
    from pipeline.gguf.export import named_importance
    from pipeline.gguf.importance import training_text
    from pipeline.serve import license_text, model_card

    with work.run.lock():
        work.keep()
        work.needs("data", "train")
        base = work.base()
        trained_on = work.run.require("train", complete=False)
        trained_on.check_inputs(base.entries(), "Train on this base: pipe train")
        tuned = trained(work.recipe, work.run, base)
        format = chat_format(work.recipe.chat.format, thinks=work.recipe.chat.thinking)
        sources = work.run.require("data").facts["sources"]
        license = license_text(work.recipe, base.folder)
        job, companions = _export_job(work.recipe, (tuned.model, tuned.adapter), license, format)
        job = replace(
            job,
            datasets=[each["dataset"] for each in sources if each.get("revision")],
            training_text=lambda tokens: training_text(
                work.run, work.encoder(), tokens, work.recipe.seed
            ),
        )
        companions["README.md"] = model_card(work.recipe, format, license, sources)
        inputs = base.entries() | work.run.input_entry("train") | named_importance(job.asked)
        plan = replace(planned("export", work.recipe, work.run), inputs=inputs)
        is_done = work.run.is_done(plan) and not work.force
        if is_done and not (freed and work.run.freed("export")):
            work.emit(Note("export is up to date."))
            return work.run.require("export", complete=False)
        work.run.check_there("train", trained_on.outputs)
        if is_done and _restored(work, job):
            return work.run.require("export")
        return stage(job, work.run, companions, plan, work.emit)


def _restored(work: Work, job: "Job") -> bool:
    """Make what `pipe clean` freed of the export; False where its bytes are others now.

    All else stays as it is, and so do the stages that came of it.
    """
    from pipeline.gguf.export import write_types

    export, draft = work.run.folder("export"), work.run.root / ".export.draft"
    made, gone = work.run.require("export", complete=False), work.run.freed("export")
    types = tuple(type for type, file in made.facts["files"].items() if file in gone)
    asked = job.asked.model_copy(update={"quantize": types, "adapter_gguf": False})
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with explained_writes("export"):
            draft.mkdir()
            write_types(replace(job, asked=asked), draft, work.emit)
            if any(describe(draft / name) != made.outputs[name] for name in gone):
                return False
            restore_files(export, draft)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    work.emit(Note(f"Made again as they were: {', '.join(gone)}."))
    return True


def export_folder(
    recipe: Recipe, folders: tuple[Path, Path | None], out: Path, emit: Emit, own_template: bool
) -> None:
    """Export any base and PEFT adapter, or a whole checkpoint, into `out`, outside a run.

    `own_template` keeps the chat template of the base instead of the recipe's chat format.
    """
    from pipeline.gguf.export import write_types
    from pipeline.serve import license_text

    format = None if own_template else chat_format(recipe.chat.format, thinks=recipe.chat.thinking)
    base = base_at(folders[0])
    license = license_text(recipe, base.folder)
    job, companions = _export_job(recipe, (base, folders[1]), license, format)
    with explained_writes(str(out)):
        out.mkdir(parents=True, exist_ok=True)
        write_types(job, out, emit)
        for name, text in companions.items():
            (out / name).write_text(text, encoding="utf-8")


def register(
    work: Work, *, name: str | None = None, replace: bool = False, allow_remote: bool = False
) -> Manifest:
    """`replace` takes the name from a model that no run here made."""
    from pipeline.serve import RegisterOptions
    from pipeline.serve import register as stage

    options = RegisterOptions(name=name, force=replace, allow_remote=allow_remote)
    with work.run.lock():
        work.keep()
        return stage(work.recipe, work.run, work.emit, options)


def register_if_served(work: Work) -> None:
    """Register where an Ollama server answers; where none does, say the command for later."""
    from pipeline.serve import registration_command

    try:
        register(work)
    except OllamaUnreachable as error:
        later = registration_command(work.run)
        work.emit(Note(f"Not registered: {error.message} Once Ollama runs: {later}"))


def evaluate(
    work: Work, metric_files: tuple[Path, ...] = (), *, shared: Path | None = None
) -> Manifest:
    """`metric_files` are Python files with a function `metric`, which are run.

    `shared` is a folder where runs of the same base keep its answers for one another.
    """
    from pipeline.data.read.sources import open_source
    from pipeline.evaluate import Means
    from pipeline.evaluate import evaluate as stage

    means = Means(open_source, metric_files, work.force, shared)
    with work.run.lock():
        work.keep()
        work.needs("data", "train")
        return stage(work.recipe, work.run, work.base(), work.emit, means)


def run_all(work: Work, launch: "Launch | None" = None) -> None:
    """prepare, train, export, registration where a server answers, eval."""
    from pipeline.train import check_device

    check_device(work.recipe)
    prepare(work)
    train(work, launch)
    export(work)
    _register_in_passing(work)
    try:
        evaluate(work)
    except FreedInput:  # there is something to measure, and a file for it was freed
        export(work, freed=True)
        evaluate(work)


def _register_in_passing(work: Work) -> None:
    if work.run.freed("export"):
        return work.emit(Note("Registered as it was: files of the export were freed."))
    try:
        register_if_served(work)
    except PipeError as error:  # the files are there: a server's refusal does not stop the scores
        work.emit(Note(f"Not registered: {error}", warning=True))


def _export_job(
    recipe: Recipe,
    weights: tuple[Base, Path | None],
    license: str,
    format: ChatFormat | None,
) -> "tuple[Job, dict[str, str]]":
    """The job on a model with or without an adapter, and the Modelfiles beside its files."""
    from pipeline.gguf.export import file_name
    from pipeline.gguf.job import Job
    from pipeline.serve import modelfile

    base, adapter = weights
    model = recipe.serve.name.rsplit("/", 1)[-1]
    job = Job(
        name=model,
        base=base,
        adapter=adapter,
        format=format,
        asked=recipe.export,
        license=license,
        sampling={"temp": recipe.serve.temperature, "top_p": recipe.serve.top_p},
    )
    companions = {
        "Modelfile" if number == 0 else f"Modelfile.{type}": modelfile(
            recipe, format, file_name(model, type), license
        )
        for number, type in enumerate(recipe.export.quantize)
    }
    return job, companions
