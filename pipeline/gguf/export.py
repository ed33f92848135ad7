"""The export stage: adapter and 16-bit base in, one GGUF file for each type out."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.base import Base
from pipeline.chat import ChatFormat
from pipeline.engines.gguf_file import GgufFile, read_gguf
from pipeline.engines.llamacpp import quantize_gguf
from pipeline.errors import PipeError
from pipeline.gguf.adapter import load_adapter
from pipeline.gguf.checkpoint import Checkpoint
from pipeline.gguf.llama import Vocabulary
from pipeline.gguf.write import Description, Merged, kind_bytes, write_gguf
from pipeline.run import Emit, Manifest, Note, Progress, Run, versions_of

# bytes a weight, rounded up: for the look at the free space only
_SIZE = {"Q4_K_S": 0.6, "Q4_K_M": 0.65, "Q5_K_S": 0.75, "Q5_K_M": 0.8, "Q6_K": 0.9, "Q8_0": 1.1}


@dataclass(frozen=True)
class Job:
    """One export, in or outside a run. `adapter` None exports the base itself."""

    name: str
    base: Base
    adapter: Path | None
    format: ChatFormat
    types: Sequence[str]
    license: str
    sampling: Mapping[str, float] = field(default_factory=dict)


def export(
    job: Job, run: Run, companions: Mapping[str, str], plan: Manifest, emit: Emit
) -> Manifest:
    """Export a run's adapter and publish `export/`.

    `companions` are small text files that belong beside the GGUFs, the Modelfile above all;
    `plan` is the manifest without outputs.
    """
    with run.publish("export") as draft:
        files = write_types(job, draft.folder, emit)
        for name, text in companions.items():
            (draft.folder / name).write_text(text, encoding="utf-8")
        draft.manifest = plan
    emit(Note(f"Exported {', '.join(files.values())}."))
    return run.require("export")


def planned(job: Job, section: Mapping[str, Any], inputs: Mapping[str, Any], seed: int) -> Manifest:
    """The manifest that this export will have, without its outputs."""
    return Manifest(
        stage="export",
        section=section,
        inputs=inputs,
        chat_format=job.format.fingerprint(),
        seed=seed,
        versions=versions_of("gguf", "llama-cpp-python", "numpy"),
        facts={
            "files": {type: file_name(job.name, type) for type in job.types},
            "license": job.license,
            "template": job.format.ollama_template,
            "base": {"name": job.base.name, "revision": job.base.revision},
        },
    )


def file_name(name: str, type: str) -> str:
    return f"{name}-{type}.gguf"


def write_types(job: Job, out: Path, emit: Emit) -> dict[str, str]:
    """Write one verified file a type into `out`; returns type -> file name.

    Raises PipeError before any work for an adapter that does not fit or a disk that is too full.
    """
    merged = _merged(job)
    vocabulary = Vocabulary.read(job.base.folder / "tokenizer.json", merged.llama.vocab)
    _check_space(merged, job.types, out)
    whole = out / f".{job.name}-merged-{merged.dtype}.gguf"
    try:
        write_gguf(whole, merged, vocabulary, _description(job), _tensors_done(emit))
        written = read_gguf(whole)
        files: dict[str, str] = {}
        for number, type in enumerate(job.types):
            emit(Progress("quantize", number, len(job.types), "types", {"type": type}))
            files[type] = _one_type(whole, written, out / file_name(job.name, type), type)
        emit(Progress("quantize", len(job.types), len(job.types), "types"))
    finally:
        whole.unlink(missing_ok=True)
    return files


def _one_type(whole: Path, written: GgufFile, target: Path, type: str) -> str:
    """Quantize beside the target, read back, then take the name."""
    unverified = target.with_name(f".{target.name}")
    try:
        if whole.name.endswith(f"-{type}.gguf"):
            shutil.copyfile(whole, unverified)
        else:
            quantize_gguf(whole, unverified, type)
        _check_same_model(written, read_gguf(unverified))
        unverified.replace(target)
    finally:
        unverified.unlink(missing_ok=True)
    return target.name


def _check_same_model(written: GgufFile, quantized: GgufFile) -> None:
    """Same tensors and shapes, and the metadata but for the quantization's own keys."""
    ours = {t.name: t.shape for t in written.tensors}
    theirs = {t.name: t.shape for t in quantized.tensors}
    own = {"general.file_type", "general.quantization_version"}
    lost = {k for k, v in written.metadata.items() if quantized.metadata.get(k) != v} - own
    if ours != theirs or lost:
        raise PipeError(f"{quantized.path.name} read back differs from what was written: {lost}.")


def _merged(job: Job) -> Merged:
    deltas = load_adapter(job.adapter) if job.adapter else {}
    return Merged.of(Checkpoint(job.base.shards()), deltas, job.base.config)


def _description(job: Job) -> Description:
    return Description(
        name=job.name,
        base=job.base.title,
        license=job.license,
        chat_template=job.format.jinja,
        bos=job.format.bos,
        end_of_turn=job.format.end_of_turn,
        pad=job.format.pad,
        sampling=job.sampling,
    )


def _check_space(merged: Merged, types: Sequence[str], out: Path) -> None:
    weights = sum(math.prod(merged.base.shape(name)) for name in merged.base)
    whole = kind_bytes(merged.dtype)
    needed = int(weights * (whole + sum(_SIZE.get(type, whole) for type in types)))
    free = shutil.disk_usage(out).free
    if free < needed:
        raise PipeError(
            f"Export needs about {needed / 1e9:.1f} GB beside {out}, {free / 1e9:.1f} GB are free.",
            "Make room, or export fewer types: --set export.quantize=[Q4_K_M]",
        )


def _tensors_done(emit: Emit) -> Any:
    return lambda done, total: emit(Progress("merge", done, total, "tensors"))
