"""What is to be compared, where it lies, and about how long it takes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.engines.trained import TUNED
from pipeline.errors import PipeError
from pipeline.plans import planned as planned_stage
from pipeline.recipe import Recipe
from pipeline.run import Run, Stage
from pipeline.run.manifest import TIMING
from pipeline.study.compare.vary import Variant, variants, varied
from pipeline.workflow import Work

Stages = tuple[Literal["train", "eval"], ...]
_TIMES: dict[Stage, tuple[str, ...]] = {
    "train": ("load_seconds", "train_seconds"),
    "export": ("seconds",),
    "eval": ("seconds",),
}
"""Stage -> what of its timing.json its work took."""


@dataclass(frozen=True)
class Comparison:
    """The variants of a recipe, and what is done with each."""

    work: Work
    """The recipe that they are variants of, and the run beside whose stages they lie."""
    variants: tuple[Variant, ...]
    stages: Stages
    export: bool

    @property
    def folder(self) -> Path:
        return self.work.run.root / "compare"

    @property
    def vary(self) -> dict[str, list[Any]]:
        return varied(self.variants)

    @property
    def ready(self) -> list[Variant]:
        """Those that their recipe and this machine allow."""
        return [variant for variant in self.variants if variant.recipe]

    def run(self, variant: Variant) -> Run:
        return Run(self.folder / "runs" / variant.label)


def planned(work: Work, vary: Sequence[str], *, stages: Stages, export: bool) -> Comparison:
    """The comparison that `--vary` asks for; a variant that this machine refuses has its reason.

    Each is asked by its base and its tuned model alone, with `export` by its GGUF files too.
    Raises RecipeError for a wrong `--vary`.
    """
    asked = ["base", TUNED, *(work.recipe.export.quantize if export else ())]
    questions = work.recipe.eval.model_copy(update={"engines": tuple(asked)})
    recipe = work.recipe.model_copy(update={"eval": questions})
    found = [_on_this_machine(variant) for variant in variants(recipe, vary)]
    return Comparison(work, tuple(found), stages, export)


def _on_this_machine(variant: Variant) -> Variant:
    from pipeline.train import check_device

    if variant.recipe is None:
        return variant
    try:
        check_device(variant.recipe)
    except PipeError as error:
        return replace(variant, recipe=None, reason=error.message)
    return variant


def expected_seconds(plan: Comparison) -> float | None:
    """About what the variants that are not done will take, as one of them did.

    Where none was timed yet, as the run itself did; None where that was trained otherwise.
    """
    wanted: list[Stage] = [*plan.stages, *(["export"] if plan.export else [])]  # type: ignore[list-item]
    taken = [_taken(v.recipe, plan.run(v), wanted) for v in plan.variants if v.recipe]
    known = [seconds for seconds in taken if seconds is not None]
    own = None if known else _taken(plan.work.recipe, plan.work.run, wanted)
    if own is not None:
        known = [own]
    if not known:
        return None
    return sum(known) / len(known) * sum(seconds is None for seconds in taken)


def _taken(recipe: Recipe, run: Run, stages: Sequence[Stage]) -> float | None:
    """Seconds that these stages took; None where one is not there, or training was another."""
    if not obeys(recipe, run, "train"):
        return None
    total = 0.0
    for stage in stages:
        try:
            times = json.loads((run.folder(stage) / TIMING).read_text(encoding="utf-8"))
            total += sum(float(times[name]) for name in _TIMES[stage])
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return total


def obeys(recipe: Recipe, run: Run, stage: Stage) -> bool:
    """Whether what the stage left was made as the recipe has it."""
    made = run.last(stage)
    return made is not None and made.follows(planned_stage(stage, recipe, run))
