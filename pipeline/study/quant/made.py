"""What a study makes to measure it: the model in one piece, GGUF files, a GPTQ checkpoint."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from pipeline.base import Base
from pipeline.chat import exchange_of
from pipeline.run import Note
from pipeline.run.disk import require_space
from pipeline.run.rows import read_jsonl
from pipeline.study.quant import gptq
from pipeline.study.quant.subject import Subject, exported

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
_CALIBRATION = 128
"""Training rows that GPTQ is calibrated on: as many segments as its authors took
(https://arxiv.org/abs/2210.17323, section 5)."""


def whole(subject: Subject) -> Base:
    """The model in 16 bits as one folder; of an adapter the merge, made once."""
    known = subject.part.trained
    if subject.model == "base":
        return known.base
    if known.adapter is None:
        return known.model
    merged = _once(subject.folder / "merged", lambda folder: _merge(subject, folder))
    return replace(known.base, folder=merged)


def gguf_files(subject: Subject, types: Sequence[str]) -> dict[str, Path]:
    """A file of each type: the run's own, and others that are made in one pass for the study."""
    found = {type: path for type, path in exported(subject).items() if type in types}
    kept = subject.folder / "gguf"
    kept.mkdir(parents=True, exist_ok=True)
    found |= {path.stem: path for path in kept.glob("*.gguf") if path.stem not in found}
    if missing := [type for type in types if type not in found]:
        subject.work.emit(Note(f"Making {', '.join(missing)} for the study."))
        draft = subject.folder / ".gguf"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        made = subject.part.make(draft, missing, tuned=subject.model == "tuned")
        for type, path in made.items():
            found[type] = path.rename(kept / f"{type}.gguf")
    return {type: found[type] for type in types}


def gptq_checkpoint(subject: Subject) -> Path:
    """The model in 4 bits by gptqmodel, calibrated on training rows.

    Raises PipeError in the tool's own words.
    """
    gptq.find()
    subject.work.emit(Note("Quantizing with GPTQ, in a process of its own."))
    rows = islice(read_jsonl(subject.work.run.folder("data") / "train.jsonl"), _CALIBRATION)
    encoded = subject.part.encoder.examples([exchange_of(row) for row in rows])
    ids = [list(each.ids) for each in encoded if each]
    model, device = whole(subject), subject.part.trained.device
    return _once(subject.folder / "gptq", lambda folder: gptq.quantize(model, ids, folder, device))


def _merge(subject: Subject, folder: Path) -> None:
    """By PEFT in fp32 on the CPU, rounded to bf16: eval's `merged`."""
    import torch

    from pipeline.engines.loading import load_model

    known = subject.part.trained
    size = sum(shard.stat().st_size for shard in known.base.shards())
    require_space(folder, size, "The merged model")
    subject.work.emit(Note("Merging the adapter into the base."))
    model = load_model("merged", known.base, known.adapter, device="cpu")
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in _TOKENIZER:
        if (known.base.folder / name).is_file():
            shutil.copyfile(known.base.folder / name, folder / name)


def _once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, where it is not there yet; a half-made one is begun anew."""
    if not folder.exists():
        draft = folder.with_name(f".{folder.name}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        make(draft)
        draft.rename(folder)
    return folder
