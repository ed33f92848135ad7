"""`pipe status` calls stale what the stages themselves would do again, whatever key changes."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import PipeError
from pipeline.plans import planned, served
from pipeline.recipe import Recipe, leaves, load
from pipeline.run import Manifest, Run, Stage, silent
from pipeline.run.folder import NEEDS, made_from
from pipeline.workflow import Work, evaluate, export, prepare, status, train

SMALL = ("data.sources.0.limit=60", "data.test.limit=20", "data.general.limit=5")
FEW = (*SMALL, "eval.engines=[base,adapter]")
OWN = {"data": prepare, "train": train, "export": export, "eval": evaluate}
"""The stages that look whether they are done; the others are always done anew."""
FIRST_WORK = (
    "pipeline.data.prepare.pins_of",
    "pipeline.train.stage.unfinished",
    "pipeline.gguf.export.export",
    "pipeline.evaluate.stage.check_there",
)
"""What each of them calls first once it has found that it is not done."""
FILE = "builtin:samples/test.jsonl"
OTHERS: tuple[Any, ...] = (
    *(True, False, 1, 2, 0.5, 600, FILE, [FILE], [{"dataset": FILE}], ["F16"], ["tensorboard"]),
    *("other", "truncate", "exact", "lora", "cuda", "grouped", "cosine"),
    *({"repetition": False}, {"tokens": 600}, {"url": "http://127.0.0.1:9/v1", "model": "m"}),
    {"question": "problem", "reply": "reannotated_assistant_content"},
)
"""Values to change a key to: the first that the recipe takes there and that says something else."""
BOUND = {
    *("train.precision", "train.optimizer", "train.early_stopping", "train.keep", "eval.samples"),
    "data.general.weight",
}
"""Keys that the recipe allows no other value of while all else stays."""


class Redone(Exception):
    """The stage is about to do its work."""


def demo(*overrides: str) -> Recipe:
    return load("demo", overrides).recipe


def keys() -> list[str]:
    return [key for key, _ in leaves(demo(*FEW).model_dump(mode="json"))]


def changed(key: str, before: Recipe) -> Recipe | None:
    values: Any = before.model_dump(mode="json")
    *path, last = key.split(".")
    place = reduce(lambda at, part: at[int(part) if part.isdigit() else part], path, values)
    for value in ("chatml-reasoning",) if key == "chat.format" else OTHERS:
        place[last] = value
        try:
            found = Recipe.model_validate(values)
        except ValidationError:
            continue
        if found != before:
            return found
    return None


@pytest.fixture(scope="module", autouse=True)
def no_ollama() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OLLAMA_HOST", "127.0.0.1:9")
        yield


def redoes(stage: Stage, recipe: Recipe, run: Run) -> bool:
    """What the stage itself decides, in its own words; a refusal says that it is not done."""

    def begin(*_: Any, **__: Any) -> None:
        raise Redone

    with pytest.MonkeyPatch.context() as patch:
        for name in FIRST_WORK:
            module, _, called = name.rpartition(".")
            patch.setattr(import_module(module), called, begin)
        try:
            OWN[stage](Work(recipe, run, silent))
        except (Redone, PipeError):
            return True
    return False


def publish(run: Run, plan: Manifest, **known: Any) -> None:
    files = {"train": "adapter/adapter_config.json", "export": "my-model-Q8_0.gguf"}
    with run.publish(plan.stage) as draft:
        path = draft.folder / files.get(plan.stage, "file")
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
        draft.manifest = replace(plan, **known)


def decided(stage: Stage, recipe: Recipe, run: Run) -> Manifest:
    """The plan that the stage compares with what is there."""
    plans: list[Manifest] = []

    def kept(_: Run, plan: Manifest) -> bool:
        plans.append(plan)
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "is_done", kept)
        assert redoes(stage, recipe, run)
    return plans[0]


def finished(root: Path, recipe: Recipe) -> Run:
    """Rows as they are; of all later stages the manifests that they would write themselves."""
    run = finished_but_eval(root, recipe)
    publish(run, decided("eval", recipe, run))
    return run


def finished_but_eval(root: Path, recipe: Recipe) -> Run:
    run = Run(root)
    prepare(Work(recipe, run, silent))
    publish(run, decided("train", recipe, run))
    files = {type: f"my-model-{type}.gguf" for type in recipe.export.quantize}
    publish(run, decided("export", recipe, run), facts={"files": files})
    models = [{"name": "my-model", "digest": "sha256:1"}]
    for stage in ("serve", "check"):
        entries = run.input_entry("export")
        publish(run, replace(planned(stage, recipe, run), inputs=entries), facts={"models": models})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(tmp_path_factory.mktemp("runs") / "demo", demo(*SMALL))


@pytest.fixture(scope="module")
def run_of_few(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Its eval asks no engine that comes from the export."""
    return finished(tmp_path_factory.mktemp("runs") / "few", demo(*FEW))


@contextmanager
def no_network() -> Iterator[None]:
    def connect(*_: Any) -> None:
        raise AssertionError("the network was asked")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        patch.setattr(socket, "getaddrinfo", connect)
        yield


def stale(recipe: Recipe, run: Run) -> set[Stage]:
    with no_network():
        found = status(Work(recipe, run, silent))
    assert set(found.values()) <= {"done", "stale"}
    return {stage for stage, state in found.items() if state == "stale"}


def redone(recipe: Recipe, run: Run) -> set[Stage]:
    """What would be done again when every stage is asked in turn."""
    found: set[Stage] = set()
    for stage in NEEDS:
        made = run.manifest(stage)
        assert made is not None
        follows = not found.isdisjoint(made_from(made))
        if follows or (stage in OWN and redoes(stage, recipe, run)):
            found.add(stage)
    return found


def test_every_stage_is_done_by_the_recipe_that_made_it(run: Run, run_of_few: Run) -> None:
    assert stale(demo(*SMALL), run) == redone(demo(*SMALL), run) == set()
    assert stale(demo(*FEW), run_of_few) == redone(demo(*FEW), run_of_few) == set()


ALL = set(NEEDS)


@pytest.mark.parametrize(
    ("setting", "states"),
    [
        ("name=other", set()),
        ("train.save_every=7", set()),
        ("seed=1", ALL),
        ("chat.thinking=false", ALL),
        ("data.eval_share=0.3", ALL),
        ("train.learning_rate=1", ALL - {"data"}),
        ("serve.num_ctx=2048", {"export", "serve", "check", "eval"}),
        ("eval.limit=3", {"eval"}),
    ],
)
def test_what_a_change_makes_stale(
    run: Run, run_of_few: Run, setting: str, states: set[Stage]
) -> None:
    assert stale(demo(*SMALL, setting), run) == states
    # its eval reads no export, and yet it obeys the context
    assert stale(demo(*FEW, setting), run_of_few) == states


def test_packed_rows_on_a_cpu_are_the_grouped_ones_that_were_trained(tmp_path: Path) -> None:
    run, packed = Run(tmp_path / "demo"), demo("train.batching=packed")
    publish(run, planned("data", packed, run))
    publish(run, replace(planned("train", packed, run), inputs=run.input_entry("data")))
    for batching, state in (("packed", "done"), ("grouped", "done"), ("shuffled", "stale")):
        found = status(Work(demo(f"train.batching={batching}"), run, silent))
        assert found["train"] == state


def test_scores_of_a_model_that_ollama_has_no_more_are_stale(tmp_path: Path) -> None:
    recipe = demo("eval.engines=[ollama]")
    run = finished_but_eval(tmp_path / "demo", recipe)
    section = planned("eval", recipe, run).section | {"served": served(run)}
    entries = run.input_entry("data") | run.input_entry("train") | run.input_entry("export")
    publish(run, replace(planned("eval", recipe, run), section=section, inputs=entries))
    assert status(Work(recipe, run, silent))["eval"] == "done"
    other = {"models": [{"name": "another", "digest": "sha256:2"}]}
    publish(run, run.require("serve"), facts=other)
    assert status(Work(recipe, run, silent))["eval"] == "stale"


def test_only_keys_that_are_bound_to_others_cannot_be_changed_alone() -> None:
    assert {key for key in keys() if changed(key, demo(*FEW)) is None} == BOUND


@pytest.mark.parametrize("key", [key for key in keys() if key not in BOUND])
def test_status_calls_stale_what_the_stages_would_do_again(key: str, run: Run) -> None:
    recipe = changed(key, demo(*SMALL))
    assert recipe is not None
    assert stale(recipe, run) == redone(recipe, run)


@pytest.mark.parametrize(
    "key", [key for key in keys() if key.startswith(("export", "serve", "eval", "name"))]
)
def test_so_it_does_where_eval_reads_no_export(key: str, run_of_few: Run) -> None:
    recipe = changed(key, demo(*FEW))
    if recipe is not None:
        assert stale(recipe, run_of_few) == redone(recipe, run_of_few)
