"""How a stage stands by the recipe as it is now."""

from pathlib import Path

import pytest

from pipeline.recipe import Recipe, load
from pipeline.run import Manifest, Run, silent
from pipeline.workflow import Work, status


def demo(*overrides: str) -> Recipe:
    return load("demo", overrides).recipe


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with a finished stage `data` of the demo recipe."""
    run, recipe = Run(tmp_path / "demo"), demo()
    with run.publish("data") as draft:
        section = recipe.model_dump(mode="json", include={"model", "data", "chat"})
        draft.manifest = Manifest(stage="data", section=section, inputs={}, seed=recipe.seed)
    return run


@pytest.mark.parametrize(
    ("setting", "state"),
    [
        ("name=other", "done"),
        ("train.learning_rate=1", "done"),
        ("seed=1", "stale"),
        ("data.eval_share=0.3", "stale"),
        ("chat.thinking=false", "stale"),
    ],
)
def test_a_stage_is_done_where_the_recipe_still_asks_for_its_work(
    run: Run, setting: str, state: str
) -> None:
    assert status(Work(demo(setting), run, silent))["data"] == state
