"""The export stage: adapter and 16-bit base in, one GGUF file for each type out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PipeError
from pipeline.gguf.adapter_file import AdapterFile
from pipeline.gguf.files import Asked, Source, check_space, write_files
from pipeline.gguf.importance import Importance, collect_importance, read_importance
from pipeline.gguf.job import Job
from pipeline.gguf.mix import Override, check_overrides
from pipeline.recipe.schema import Export
from pipeline.run import Emit, Manifest, Note, Run, versions_of
from pipeline.run.manifest import Entry, describe

_IMPORTANCE = "importance.gguf"


@dataclass(frozen=True)
class Exported:
    """File names by type, and what really was done."""

    files: Mapping[str, str]
    facts: Mapping[str, Any]


def export(
    job: Job, run: Run, companions: Mapping[str, str], plan: Manifest, emit: Emit
) -> Manifest:
    """Export a run's adapter and publish `export/`.

    `companions` are small text files that belong beside the GGUFs, the Modelfile above all;
    `plan` is what the manifest says of the recipe and of what is read.
    """
    versions = versions_of("gguf", "llama-cpp-python", "numba", "numpy")
    with run.publish("export") as draft:
        done = write_types(job, draft.folder, emit)
        for name, text in companions.items():
            (draft.folder / name).write_text(text, encoding="utf-8")
        draft.manifest = replace(plan, versions=versions, facts={**_facts(job), **done.facts})
    emit(Note(f"Exported {', '.join(done.files.values())}."))
    return run.require("export")


def _facts(job: Job) -> dict[str, Any]:
    return {
        "files": {type: file_name(job.name, type) for type in job.asked.quantize},
        "license": job.license,
        "template": job.format.ollama_template if job.format else None,
        "base": {"name": job.base.name, "revision": job.base.revision},
    }


def named_importance(asked: Export) -> dict[str, Entry]:
    """The importance matrix that a recipe names, as an input of the stage."""
    if asked.importance is None or asked.importance.file is None:
        return {}
    path = Path(asked.importance.file)
    read_importance(path)
    return {f"importance/{path.name}": describe(path)}


def file_name(name: str, type: str) -> str:
    return f"{name}-{type}.gguf"


def write_types(job: Job, out: Path, emit: Emit) -> Exported:
    """Write one verified file a type into `out`.

    Raises PipeError before any work for a model, an adapter or a type that is not exported and
    for a disk that is too full; during it for NaN or infinity in what was merged.
    """
    overrides = tuple(map(Override.parse, job.asked.tensor_types))
    check_overrides(job.asked.quantize, overrides)
    source = Source(job, emit)
    names: dict[str, str] = {type: file_name(job.name, type) for type in job.asked.quantize}
    asked = [Asked(out / name, type, overrides) for type, name in names.items()]
    adapter = _adapter_file(job, source, out)
    importance = _importance(job, source, asked, emit)
    types = write_files(source, asked, importance, emit)
    if adapter:
        adapter.write()
        names["adapter"] = adapter.output.path.name
    facts: dict[str, Any] = {"tensor_types": types, "adapter": dict(source.merged.summary)}
    if importance:
        facts["importance"] = {**importance.metadata(), **describe(importance.path).__dict__}
    return Exported(names, facts)


def _adapter_file(job: Job, source: Source, out: Path) -> AdapterFile | None:
    if not job.asked.adapter_gguf:
        return None
    if job.adapter is None:
        raise PipeError(
            "There is no adapter to write alone.",
            "Leave out --adapter-gguf, or export.adapter_gguf of a run that was trained in full.",
        )
    path = out / f"{job.name}-adapter.gguf"
    return AdapterFile(path, source.merged.changes, source.model, source.description)


def _importance(job: Job, source: Source, asked: list[Asked], emit: Emit) -> Importance | None:
    """The matrix that was named, or one collected on the merged model in Q8_0."""
    wish = job.asked.importance
    if wish is None:
        return None
    if wish.file is not None:
        found = read_importance(Path(wish.file))
    elif job.training_text is None:
        raise PipeError(
            "There are no training rows here to collect an importance matrix on.",
            "Name one that llama-imatrix made: --imatrix FILE",
        )
    else:
        found = _collected(job, source, asked, emit)
    found.check_fit(source.merged.shapes())
    return found


def _collected(job: Job, source: Source, asked: list[Asked], emit: Emit) -> Importance:
    wish, text = job.asked.importance, job.training_text
    assert wish and text
    out = asked[0].path.parent
    model = Asked(out / f".{job.name}-importance.gguf", "Q8_0")
    # what would be refused after the collection is refused before it
    check_space([source.output(each, None) for each in (*asked, model)])
    try:
        write_files(source, [model], None, emit)
        return collect_importance(
            model.path,
            text(wish.tokens),
            out / _IMPORTANCE,
            context=wish.context,
            chunks=-(-wish.tokens // wish.context),
            emit=emit,
        )
    finally:
        model.path.unlink(missing_ok=True)
