"""Small trainings of the demo's base: real Unsloth, in one warm process for all of them."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pipeline import workflow
from pipeline.assets import asset
from pipeline.child import Child
from pipeline.errors import NativeCrash, PipeError
from pipeline.recipe import load
from pipeline.run import Manifest, Note, Run
from pipeline.train import stage
from pipeline.train.launch import _environment
from pipeline.train.unfinished import FOLDER
from pipeline.workflow.work import Work
from tests.support.faulty_worker import ORDERS

ROWS, GENERAL_ROWS = 96, 4
TRAIN = {
    "max_steps": 12,
    "batch_size": 4,
    "gradient_accumulation": 2,
    "save_every": 3,
    "eval_every": 4,
    "neftune_noise_alpha": 5.0,
    "lora": {"r": 8, "alpha": 16, "dropout": 0.1},
}
"""12 steps of 8 rows in 4 bits, with all that is random: order, dropout, noise."""


def write_recipe(folder: Path, train: dict[str, Any]) -> Path:
    """A pipe.yaml on the first of the shipped rows, which are copied beside it."""
    for name, count in (("train", ROWS), ("general-tiny", GENERAL_ROWS)):
        with asset(f"data/samples/{name}.jsonl").open(encoding="utf-8") as file:
            (folder / f"{name}.jsonl").write_text("".join(islice(file, count)), encoding="utf-8")
    recipe = {
        "extends": "demo",
        "data": {
            "sources": [{"dataset": str(folder / "train.jsonl")}],
            "general": {"dataset": str(folder / "general-tiny.jsonl")},
            "eval_share": 0.1,
        },
        "train": train,
    }
    path = folder / "pipe.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


@dataclass
class Outcome:
    """What a training said; `error` is what it raised."""

    said: list[str]
    manifest: Manifest | None = None
    error: BaseException | None = None

    @property
    def text(self) -> str:
        return "\n".join(self.said)


@dataclass
class Bench:
    """Runs trainings in copies of one prepared run. Use as a context manager."""

    folder: Path
    _child: Child | None = None
    _names: int = 0
    _orders: Path = field(default_factory=lambda: Path(tempfile.mkdtemp()) / "orders.json")

    def __post_init__(self) -> None:
        self.recipe_file = write_recipe(self.folder, TRAIN)
        self.prepared = Run(self.folder / "prepared")
        workflow.prepare(Work(load(str(self.recipe_file)).recipe, self.prepared, lambda _: None))

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        if self._child:
            self._child.kill()
        shutil.rmtree(self._orders.parent)

    def run(self, like: Run | None = None) -> Run:
        """A new run: prepared only, or a copy of another."""
        self._names += 1
        root = self.folder / "runs" / f"r{self._names}"
        shutil.copytree((like or self.prepared).root, root)
        return Run(root)

    def train(self, run: Run, *settings: str, force: bool = False, **faults: Any) -> Outcome:
        """One `pipe train` with the recipe's keys changed and things going wrong."""
        overrides = [f"train.{each}" for each in settings]
        recipe = load(str(self.recipe_file), overrides).recipe
        said: list[str] = []
        work = Work(recipe, run, lambda e: said.append(e.text) if isinstance(e, Note) else None)
        with self._warm(recipe, faults):
            try:
                made = stage.train(recipe, run, work.base(), work.emit, force=force)
            except (PipeError, KeyboardInterrupt) as error:
                return Outcome(said, error=error)
        return Outcome(said, made)

    @contextmanager
    def _warm(self, recipe: Any, faults: dict[str, Any]) -> Iterator[None]:
        @contextmanager
        def open_child(job_file: Path, *_: Any, **__: Any) -> Iterator[Child]:
            orders = {"job": str(job_file), "faults": faults}
            self._orders.write_text(json.dumps(orders), encoding="utf-8")
            try:
                yield self._living(recipe)
            except NativeCrash:
                assert self._child
                self._child.close()
                self._child = None
                raise

        with patch("pipeline.train.watching.open_child", open_child):
            yield

    def _living(self, recipe: Any) -> Child:
        if self._child is None:
            scratch = self._orders.parent / "scratch"
            environment = {
                **_environment(recipe.train, scratch),
                ORDERS: str(self._orders),
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2])]),
            }
            module = "tests.support.faulty_worker"
            self._child = Child(module, hint="go on", environment=environment)
        return self._child


def work_of(run: Run) -> Path:
    """The folder of its training under way."""
    return run.root / FOLDER


def steps_of(run: Run) -> list[int]:
    """The steps of its checkpoints."""
    found = (work_of(run) / "checkpoints").glob("step-*")
    return sorted(int(path.name.removeprefix("step-")) for path in found)
