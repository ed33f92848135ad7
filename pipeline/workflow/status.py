"""How each stage stands, and what it would do."""

from collections.abc import Sequence
from typing import Any

from pipeline.errors import ChangedInput, StaleInput
from pipeline.recipe import Recipe
from pipeline.recipe.training import UNSEEN
from pipeline.run import Manifest, Stage
from pipeline.run.folder import NEEDS, made_from
from pipeline.workflow.work import Work

StageStatus = str


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


def status(work: Work) -> dict[Stage, StageStatus]:
    """Each stage: done, missing, changed (a file is not what was written) or stale.

    One of which `pipe clean` freed files is done.
    """
    found: dict[Stage, StageStatus] = {}
    for stage in NEEDS:
        try:
            manifest = work.run.manifest(stage)
            if manifest is None:
                found[stage] = "missing"
                continue
            whole = all(found[need] == "done" for need in made_from(manifest))
            current = whole and _obeys(manifest, work)
            if current:
                work.run.require(stage, complete=False)
            found[stage] = "done" if current else "stale"
        except StaleInput:
            found[stage] = "stale"
        except ChangedInput:
            found[stage] = "changed"
    return found


def _obeys(manifest: Manifest, work: Work) -> bool:
    """True when the recipe still says what the stage was told, as far as results hang on it."""
    if manifest.seed != work.recipe.seed:
        return False
    recipe = work.recipe.model_dump(mode="json")
    asked = {key: value for key, value in manifest.section.items() if key in recipe}
    return all(_that_matters(key, recipe[key]) == _that_matters(key, asked[key]) for key in asked)


def _that_matters(section: str, values: Any) -> Any:
    """A section without the keys of `train` that change nothing of what is learned."""
    if section != "train" or not isinstance(values, dict):
        return values
    return {key: value for key, value in values.items() if key not in UNSEEN}


def _sources(recipe: Recipe) -> list[str]:
    return [recipe.model.base, *(source.dataset for source in recipe.data.sources)]
