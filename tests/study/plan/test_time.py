"""Steps and tokens of a training, and the speed that was measured."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.recipe import Recipe, load
from pipeline.run import Manifest, Run
from pipeline.study.plan.calibrate import last_speed, length_of
from pipeline.study.plan.plan import Time, setting_of

LENGTHS = [40, 60, 80, 100, 120, 400]


def prepared(root: Path, recipe: Recipe) -> Run:
    """A run whose rows have LENGTHS tokens."""
    run = Run(root)
    with run.publish("data") as draft:
        table = pa.table({"input_ids": [list(range(size)) for size in LENGTHS]})
        (draft.folder / "encoded").mkdir()
        for name in ("train", "eval", "general"):
            path = draft.folder / "encoded" / f"{name}.arrow"
            with pa.ipc.new_stream(str(path), table.schema) as file:
                file.write_table(table)
        stats = {"tokens": {"train": {"max": max(LENGTHS)}, "eval": None}}
        (draft.folder / "stats.json").write_text(json.dumps(stats))
        section = {"model": recipe.model.model_dump(mode="json")}
        facts = {"base": {"name": recipe.model.base, "revision": None}}
        draft.manifest = Manifest(stage="data", section=section, inputs={}, facts=facts)
    return run


def demo(*overrides: str) -> Recipe:
    return load("demo", overrides).recipe


def test_two_epochs_see_every_token_twice(tmp_path: Path) -> None:
    recipe = demo("train.max_steps=null", "train.epochs=2", "train.batch_size=3")
    length = length_of(recipe, prepared(tmp_path, recipe))
    assert length and (length.steps, length.tokens) == (4, 2 * sum(LENGTHS))


def test_max_steps_end_it_whatever_the_epochs_say(tmp_path: Path) -> None:
    recipe = demo("train.max_steps=1", "train.batch_size=6", "train.epochs=9")
    length = length_of(recipe, prepared(tmp_path, recipe))
    assert length and (length.steps, length.tokens) == (1, sum(LENGTHS))


def test_packed_rows_make_fewer_steps_of_as_many_tokens(tmp_path: Path) -> None:
    gpu = ("train.device=cuda", "train.batching=packed", "train.precision=bf16")
    recipe = demo(*gpu, "train.max_steps=null", "train.batch_size=1", "train.epochs=1")
    length = length_of(recipe, prepared(tmp_path, recipe))
    assert length and length.steps == 2 and length.tokens == sum(LENGTHS)


def test_nothing_is_said_of_rows_that_are_not_prepared(tmp_path: Path) -> None:
    assert length_of(demo(), Run(tmp_path)) is None
    assert Time(None, None).seconds is None


def trained(root: Path, recipe: Recipe) -> Run:
    """A run that holds a training by the recipe, and the speed of three steps."""
    run = Run(root)
    speeds = [(60.0, 1.0), (2.0, 50.0), (1.0, 400.0)]
    lines = [{"seconds": s, "tokens_per_second": rate} for s, rate in speeds]
    section = recipe.model_dump(mode="json", include={"train", "model"})
    with run.publish("train") as draft:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (draft.folder / "speed.jsonl").write_text(text)
        draft.manifest = Manifest(stage="train", section=section, inputs={})
    return run


def test_the_first_step_does_not_count_for_the_speed(tmp_path: Path) -> None:
    speed = last_speed(demo(), trained(tmp_path, demo()))
    assert speed and speed.steps == 2
    assert speed.tokens_per_second == pytest.approx((100 + 400) / 3, abs=0.1)


def test_a_run_without_a_training_has_no_speed(tmp_path: Path) -> None:
    assert last_speed(demo(), Run(tmp_path)) is None


@pytest.mark.parametrize(
    "setting",
    ["train.method=full", "train.lora.r=64", "train.batch_size=1", "model.max_seq_length=256"],
)
def test_no_speed_is_claimed_for_a_training_whose_steps_are_others(
    tmp_path: Path, setting: str
) -> None:
    run = trained(tmp_path, demo())
    assert last_speed(demo(setting), run) is None
    longer = demo("train.learning_rate=1e-4", "train.max_steps=7", "train.save_every=3")
    assert last_speed(longer, run) == last_speed(demo(), run) is not None


def test_rows_are_taken_as_long_as_the_longest_that_was_prepared(tmp_path: Path) -> None:
    recipe = demo()
    assert setting_of(recipe, Run(tmp_path)).max_seq_length == 512
    run = prepared(tmp_path, recipe)
    assert setting_of(recipe, run).max_seq_length == max(LENGTHS)
    longer = demo("model.max_seq_length=1024")
    assert setting_of(longer, run).max_seq_length == 1024


def test_tokens_are_counted_from_the_order_that_training_itself_takes() -> None:
    from pipeline.train.order import order_of

    lengths = np.array(LENGTHS)
    order = order_of(lengths, 4, epochs=1, max_steps=None, seed=3407, grouped=False)
    seen = [LENGTHS[row] for row in order.flat()]
    assert len(seen) == 8 and sum(seen) == order.tokens(lengths)[-1]
