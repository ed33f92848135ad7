"""How each stage stands, and what it would do."""

from collections.abc import Sequence
from typing import Any

from pipeline.plans import planned
from pipeline.recipe import Recipe
from pipeline.run import Stage
from pipeline.run.folder import NEEDS, State, made_from
from pipeline.workflow.work import Work


def preview(work: Work, stages: Sequence[Stage]) -> dict[Stage, dict[str, Any]]:
    """What each stage would read and obey, and how it stands now; touches nothing."""
    recipe = work.recipe.model_dump(mode="json")
    states = status(work)
    sections = {"data": "data", "train": "train", "export": "export", "serve": "serve"}
    return {
        stage: {
            "status": states[stage],
            "reads": [f"{need}/" for need in NEEDS[stage]] or _sources(work.recipe),
            "settings": recipe[sections.get(stage, "eval")],
        }
        for stage in stages
    }


def status(work: Work) -> dict[Stage, State]:
    """Each stage: done, missing, changed, or stale where it or one that it read would be redone."""
    found: dict[Stage, State] = {}
    for stage in NEEDS:
        made = work.run.last(stage)
        is_stale = made and any(found[need] != "done" for need in made_from(made))
        plan = planned(stage, work.recipe, work.run)
        found[stage] = "stale" if is_stale else work.run.standing(plan)
    return found


def _sources(recipe: Recipe) -> list[str]:
    return [recipe.model.base, *(source.dataset for source in recipe.data.sources)]
