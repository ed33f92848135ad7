"""Stages that leave in a moment what the real ones leave, and write down that they were done."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipeError
from pipeline.plans import planned as planned_stage
from pipeline.run import Manifest, Note, Run
from pipeline.run.files import write_json
from pipeline.run.folder import Draft
from pipeline.study.compare import Comparison, planned
from pipeline.study.compare import compare as study
from pipeline.study.compare import work as room
from pipeline.workflow import Work
from tests.support.exported import demo

ITEMS = 100
GB = 1_000_000_000


@dataclass(frozen=True)
class Figures:
    """What a variant's stages measure."""

    right: int = 80
    """Of ITEMS, the first so many."""
    off: Sequence[float] = (4.0,)
    """How far the tuned model's numbers are off: of the first item, the second, then again."""
    memory: int = 2 * GB
    seconds: float = 100.0
    eval_loss: float = 0.5
    general: tuple[float, float] = (2.0, 2.1)
    method: str = "qlora"


@dataclass
class Bench:
    """A run, the figures of its variants by label, and what was done."""

    root: Path
    figures: Mapping[str, Figures] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fails: dict[str, PipeError] = field(default_factory=dict)
    """`train r=8` -> what it raises."""
    stops: str = ""
    """Where Ctrl-C comes."""
    engines: list[str] = field(default_factory=list)
    """Those that were asked last."""

    def plan(self, *vary: str, **how: Any) -> Comparison:
        force = how.pop("force", False)
        recipe = demo(*how.pop("overrides", ()))
        work = Work(recipe, Run(self.root), self._emit, force)
        how = {"stages": ("train", "eval"), "export": False} | how
        return planned(work, vary, **how)

    def compare(self, *vary: str, **how: Any) -> dict[str, Any]:
        self.done.clear()
        self.notes.clear()
        return study(self.plan(*vary, **how))

    def prepare(self, work: Work) -> None:
        self._stage("prepare", work, planned_stage("data", work.recipe, work.run), _rows)

    def train(self, work: Work) -> None:
        plan = planned_stage("train", work.recipe, work.run)
        inputs = plan.inputs | work.run.input_entry("data")
        facts = plan.facts | _facts(self.of(work))
        made = replace(plan, inputs=inputs, facts=facts, counts={"steps": 4})
        self._stage("train", work, made, lambda draft: _training(draft, self.of(work)))

    def export(self, work: Work) -> None:
        kinds = work.recipe.export.quantize
        section = {"export": work.recipe.export.model_dump(mode="json")}
        facts = {"files": {kind: f"my-model-{kind}.gguf" for kind in kinds}}
        made = Manifest("export", section, work.run.input_entry("train"), facts=facts)

        def write(draft: Draft) -> None:
            for file in facts["files"].values():
                (draft.folder / file).write_bytes(b"GGUF")

        self._stage("export", work, made, write)

    def rows(self, label: str) -> Path:
        return self.root / "compare" / "runs" / label / "data" / "test.jsonl"

    def ask(self, _: Comparison, work: Work) -> None:
        self.engines = list(work.recipe.eval.engines)
        asked = {"eval": work.recipe.eval.model_dump(mode="json"), "engines": self.engines}
        inputs = work.run.input_entry("data") | work.run.input_entry("train")
        made = Manifest("eval", asked, inputs)
        right = {"base": 5, "adapter": self.of(work).right}
        right |= {kind: self.of(work).right - 1 for kind in self.engines[2:]}
        off = {"base": (48.0,), "adapter": self.of(work).off}
        found = _Answers(right, off if "mae" in work.recipe.eval.metrics else {})
        self._stage("eval", work, made, found.write)

    def of(self, work: Work) -> Figures:
        return self.figures.get(work.run.name, Figures())

    def _stage(self, name: str, work: Work, made: Manifest, write: Any) -> None:
        said = f"{name} {work.run.name}"
        if said == self.stops:
            raise KeyboardInterrupt
        if said in self.fails:
            raise self.fails[said]
        work.keep()
        if work.run.is_done(made) and not work.force:
            return
        self.done.append(said)
        with work.run.publish(made.stage) as draft:  # type: ignore[arg-type]
            write(draft)
            draft.manifest = made

    def _emit(self, event: object) -> None:
        if isinstance(event, Note):
            self.notes.append(event.text)


def bench(root: Path, monkeypatch: pytest.MonkeyPatch, **figures: Figures) -> Bench:
    made = Bench(root, {label.replace("_", "="): each for label, each in figures.items()})
    monkeypatch.setattr(room.workflow, "prepare", made.prepare)
    monkeypatch.setattr(room.workflow, "train", made.train)
    monkeypatch.setattr(room.workflow, "export", made.export)
    monkeypatch.setattr(room, "_ask", made.ask)
    return made


def _rows(draft: Draft) -> None:
    rows = [{"id": f"t{n}", "question": f"{n} + 1?", "reference": str(n + 1)} for n in range(ITEMS)]
    _lines(draft.folder / "test.jsonl", rows)


def _facts(figures: Figures) -> dict[str, Any]:
    return {
        "method": figures.method,
        "device": "cpu",
        "trainable_parameters": 400,
        "total_parameters": 1000,
        "final_loss": 0.25,
        "eval_loss": figures.eval_loss,
        "general_loss_before": figures.general[0],
        "general_loss_after": figures.general[1],
    }


def _training(draft: Draft, figures: Figures) -> None:
    steps = [{"step": step, "loss": 2.0 / step, "learning_rate": 0.1} for step in (1, 2, 3, 4)]
    _lines(draft.folder / "metrics.jsonl", steps)
    each = {"seconds": figures.seconds / 4, "tokens_per_second": 50.0, "memory_bytes": 1}
    _lines(draft.folder / "speed.jsonl", [each | {"step": step} for step in (1, 2, 3, 4)])
    # what the last process took, which may have gone on from a checkpoint
    log = {"seconds": {"train": 1.0}, "peak_memory_bytes": {"resident": figures.memory}}
    write_json(draft.folder / "training_log.json", log)
    draft.timing |= {"load_seconds": 5.0, "train_seconds": figures.seconds}


@dataclass(frozen=True)
class _Answers:
    """What every engine answered."""

    right: Mapping[str, int]
    off: Mapping[str, Sequence[float]]

    def write(self, draft: Draft) -> None:
        engines = {engine: self._scores(engine) for engine in self.right}
        write_json(
            draft.folder / "results.json", {"items": ITEMS, "samples": 1, "engines": engines}
        )
        answers = [
            {"task": "test", "engine": engine, "id": f"t{n}", "metrics": self._values(engine, n)}
            for engine in self.right
            for n in range(ITEMS)
        ]
        _lines(draft.folder / "answers.jsonl", answers)

    def _scores(self, engine: str) -> dict[str, Any]:
        hits = self.right[engine]
        near = {"value": hits / ITEMS, "low": (hits - 4) / ITEMS, "high": hits / ITEMS}
        errors = [self._values(engine, n).get("mae") for n in range(ITEMS)]
        known = [error for error in errors if error is not None]
        if not known:
            return {"exact_match": near}
        mean = sum(known) / ITEMS
        return {
            "exact_match": near,
            "mae": {"value": mean, "low": mean - 0.5, "high": mean + 0.5},
        }

    def _values(self, engine: str, n: int) -> dict[str, float]:
        errors = self.off.get(engine, ())
        found: dict[str, float] = {"exact_match": int(n < self.right[engine])}
        return found | ({"mae": errors[n % len(errors)]} if errors else {})


def _lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
