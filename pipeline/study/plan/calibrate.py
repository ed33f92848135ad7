"""How long a training will take: tokens in all, and tokens a second as they were measured."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.recipe import Recipe
from pipeline.recipe.training import UNSEEN, Train
from pipeline.run import Run
from pipeline.run.rows import read_jsonl
from pipeline.workflow.work import Work

STEPS = 4
"""Optimizer steps of a calibration; the first, which warms up, does not count."""
_SPEEDS = "speed.jsonl"
_BESIDE_A_STEP = (
    *UNSEEN, "epochs", "max_steps", "gradient_accumulation", "learning_rate", "warmup_steps",
    "schedule", "weight_decay", "max_grad_norm", "eval_every", "early_stopping", "keep",
)  # fmt: skip
"""Keys of Train that leave a micro-batch as fast as it was."""


@dataclass(frozen=True)
class Length:
    """The training that the recipe asks for, on the run's rows."""

    steps: int
    tokens: int
    """All that are learned from, padding not counted."""


@dataclass(frozen=True)
class Speed:
    """Tokens a second, padding not counted, and where they were measured."""

    tokens_per_second: float
    source: str
    steps: int
    """Optimizer steps that were measured."""
    peak_bytes: int | None = None
    """The most memory that the measured training held, imports included."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def length_of(recipe: Recipe, run: Run) -> Length | None:
    """Steps and tokens of the whole training; None before `pipe prepare`."""
    import numpy as np

    from pipeline.report.histogram import row_lengths
    from pipeline.train.order import bins_of, order_of

    path = run.folder("data") / "encoded" / "train.arrow"
    if run.last("data") is None or not path.exists():
        return None
    lengths = row_lengths(path)
    train = recipe.train
    if train.batching == "packed" and train.device == "cuda":
        bins = bins_of(lengths, recipe.model.max_seq_length)
        lengths = np.array([lengths[each].sum() for each in bins], dtype=np.int64)
    order = order_of(
        lengths,
        train.batch_size * train.gradient_accumulation,
        epochs=train.epochs,
        max_steps=train.max_steps,
        seed=recipe.seed,
        grouped=False,
    )
    return Length(len(order.steps), int(order.tokens(lengths)[-1]))


def last_speed(recipe: Recipe, run: Run) -> Speed | None:
    """The speed of the training that the run holds.

    None where there is none, and where the recipe asks for a training whose steps are others.
    """
    made = run.last("train")
    asked = recipe.model_dump(mode="json", include={"train", "model"})
    if made is None or _of_a_step(made.section) != _of_a_step(asked):
        return None
    path = run.folder("train") / _SPEEDS
    return _speed(path, f"this run's own training ({path})") if path.exists() else None


def calibrate(work: Work) -> Speed:
    """Train a few steps of the recipe on this machine, in a run of its own that is removed.

    Raises MissingInput before `pipe prepare`, and PipeError where training itself does.
    """
    from pipeline.train import check_device, train

    check_device(work.recipe)
    work.run.require("data")
    with tempfile.TemporaryDirectory(prefix="pipe-plan-") as folder:
        trial = Run(Path(folder) / work.run.name)
        trial.root.mkdir()
        _lend_rows(work.run.folder("data"), trial.folder("data"))
        recipe = work.recipe.model_copy(update={"train": _short(work.recipe.train)})
        train(recipe, trial, work.base(), work.emit)
        speed = _speed(trial.folder("train") / _SPEEDS, "calibration on this machine")
        assert speed is not None
        return replace(speed, peak_bytes=_peak(trial))


def _of_a_step(section: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of a recipe's `train` and `model` decides how fast a micro-batch is learned."""
    train = {key: value for key, value in section["train"].items() if key not in _BESIDE_A_STEP}
    return train, section["model"]["base"], section["model"]["max_seq_length"]


def _short(train: Train) -> Train:
    """A few steps and nothing beside them; the schedule is theirs, which changes no speed."""
    return train.model_copy(
        update={
            "max_steps": STEPS,
            "save_every": STEPS,
            "eval_every": None,
            "early_stopping": None,
            "keep": "last",
            "sample_every": None,
            "trackers": (),
        }
    )


def _lend_rows(data: Path, folder: Path) -> None:
    """The rows to learn, as links; none to measure losses on, which is no part of a step."""
    import pyarrow as pa

    apart = shutil.ignore_patterns("eval.arrow", "general.arrow")
    shutil.copytree(data.resolve(), folder, copy_function=os.symlink, ignore=apart)
    encoded = folder / "encoded"
    with pa.memory_map(str(data / "encoded" / "eval.arrow")) as file:
        schema = pa.ipc.open_stream(file).schema
    with pa.ipc.new_stream(str(encoded / "eval.arrow"), schema) as empty:
        empty.write_table(schema.empty_table())


def _speed(path: Path, source: str) -> Speed | None:
    """All but the first step, which compiles and fills caches."""
    lines = list(read_jsonl(path))
    steady = lines[1:] or lines
    seconds = sum(line["seconds"] for line in steady)
    tokens = sum(line["tokens_per_second"] * line["seconds"] for line in steady)
    return Speed(round(tokens / seconds, 1), source, len(steady)) if seconds else None


def _peak(run: Run) -> int | None:
    log = json.loads((run.folder("train") / "training_log.json").read_text(encoding="utf-8"))
    peaks: dict[str, int] = log.get("peak_memory_bytes") or {}
    return peaks.get("gpu_allocated") or peaks.get("resident")
