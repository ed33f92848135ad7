"""A training that was stopped, by whatever, ends with the bytes of one that was not."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from pipeline.errors import ChangedInput
from pipeline.run import Run, describe_tree
from tests.support.training import Bench, steps_of, work_of

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("bench")) as bench:
        yield bench


def result(run: Run) -> dict[str, str]:
    """Hash by file of what `pipe train` published, its manifest with all facts included."""
    assert not work_of(run).exists()
    run.require("train")
    skip = ("timing.json", "speed.jsonl", "training_log.json", "training_log.txt")
    return {
        name: each.sha256 for name, each in describe_tree(run.folder("train"), skip=skip).items()
    }


@pytest.fixture(scope="module")
def whole(bench: Bench) -> dict[str, str]:
    """What 12 steps in one go leave."""
    run = bench.run()
    assert bench.train(run).error is None
    return result(run)


@pytest.fixture(scope="module")
def stopped(bench: Bench) -> Run:
    """Cut short before step 8: checkpoints of the steps 3 and 6."""
    run = bench.run()
    assert "cut short" in str(bench.train(run, cut=8).error)
    assert steps_of(run) == [3, 6] and not run.folder("train").exists()
    return run


def test_a_training_goes_on_to_the_same_bytes(
    bench: Bench, stopped: Run, whole: dict[str, str]
) -> None:
    run = bench.run(stopped)
    outcome = bench.train(run)
    assert "Going on from the checkpoint of step 6." in outcome.said
    assert result(run) == whole
    steps = [json.loads(line) for line in open_lines(run, "speed.jsonl")]
    assert [line["step"] for line in steps] == list(range(1, 13))


def test_a_training_cut_at_many_places_goes_on_to_the_same_bytes(
    bench: Bench, whole: dict[str, str]
) -> None:
    run = bench.run()
    for step in (2, 4, 5, 11):  # before the first checkpoint, after one, again, near the end
        assert bench.train(run, cut=step).error
    bench.train(run)
    assert result(run) == whole


def test_sixteen_bits_go_on_to_the_same_bytes(bench: Bench) -> None:
    found = []
    for cuts in ((), (5,)):
        run = bench.run()
        for step in cuts:
            bench.train(run, "method=lora", cut=step)
        outcome = bench.train(run, "method=lora")
        assert outcome.manifest and outcome.manifest.facts["load_in_4bit"] is False
        found.append(result(run))
    assert found[0] == found[1]


def test_a_training_that_is_asked_to_stop_ends_its_step_and_goes_on_to_the_same_bytes(
    bench: Bench, whole: dict[str, str]
) -> None:
    run = bench.run()
    outcome = bench.train(run, stop=5)
    assert isinstance(outcome.error, KeyboardInterrupt)
    assert "Stopped after step 5; to go on from there: pipe train" in outcome.said
    assert steps_of(run) == [3, 5]
    outcome = bench.train(run)
    assert "Going on from the checkpoint of step 5." in outcome.said
    assert result(run) == whole


def _tear(folder: Path) -> str:
    path = folder / "weights.safetensors"
    os.truncate(path, path.stat().st_size // 2)
    return "weights.safetensors has"


def _flip(folder: Path) -> str:
    path = folder / "optimizer.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return "optimizer.pt is not what was written"


def _lose(folder: Path) -> str:
    (folder / "scheduler.pt").unlink()
    return "scheduler.pt is gone"


def _unsign(folder: Path) -> str:
    (folder / "checkpoint.json").unlink()
    return "it has no checkpoint.json"


@pytest.mark.parametrize("damage", [_tear, _flip, _lose, _unsign])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_taken(
    bench: Bench, stopped: Run, whole: dict[str, str], damage: Callable[[Path], str]
) -> None:
    run = bench.run(stopped)
    newest = work_of(run) / "checkpoints" / "step-000006"
    reason = damage(newest)
    outcome = bench.train(run)
    assert f"Checkpoint {newest} is not used: {reason}" in outcome.text
    assert "Going on from the checkpoint of step 3." in outcome.said
    assert result(run) == whole


def test_where_every_checkpoint_is_bad_the_training_begins_anew(
    bench: Bench, stopped: Run, whole: dict[str, str]
) -> None:
    run = bench.run(stopped)
    for step in (3, 6):
        _tear(work_of(run) / "checkpoints" / f"step-{step:06d}")
    outcome = bench.train(run)
    assert "No checkpoint can be used: the training begins anew." in outcome.said
    assert "step-000003 is not used" in outcome.text and "step-000006 is not" in outcome.text
    assert result(run) == whole


def test_a_changed_recipe_is_refused_with_the_difference_and_unseen_keys_are_not(
    bench: Bench, stopped: Run, whole: dict[str, str]
) -> None:
    run = bench.run(stopped)
    refused = bench.train(run, "learning_rate=0.001", "lora.r=4").error
    assert isinstance(refused, ChangedInput)
    assert "  train.learning_rate: 0.002, now 0.001" in refused.message
    assert "  train.lora.r: 8, now 4" in refused.message
    assert "pipe train --force" in refused.hint
    assert steps_of(run) == [3, 6]
    assert bench.train(run, "save_every=5").error is None
    assert result(run) == whole


BEST = (
    "keep=best",
    "early_stopping=2",
    "eval_every=2",
    "learning_rate=3",
    "warmup_steps=30",
    "max_steps=30",
)
"""A rate so high that the eval rows are soon no better predicted."""


@dataclass
class Best:
    run: Run
    step: int
    files: dict[str, str]


@pytest.fixture(scope="module")
def best(bench: Bench) -> Best:
    run = bench.run()
    outcome = bench.train(run, *BEST)
    assert outcome.manifest
    return Best(run, outcome.manifest.facts["best_step"], result(run))


def test_training_stops_where_the_eval_loss_has_not_become_better_twice(best: Best) -> None:
    lines = [json.loads(line) for line in open_lines(best.run, "metrics.jsonl")]
    losses = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
    steps = sorted(losses)
    assert steps == list(range(2, steps[-1] + 1, 2)) and steps[-1] < 30
    assert best.step == min(losses, key=lambda step: losses[step]) == steps[-3]
    facts = best.run.require("train").facts
    assert facts["steps"] == steps[-1] == max(line["step"] for line in lines)
    assert facts["kept_step"] == best.step and facts["eval_loss"] == losses[best.step]


def test_the_best_weights_are_kept_and_a_kill_or_a_bad_file_changes_nothing(
    bench: Bench, best: Best
) -> None:
    last = best.run.require("train").facts["steps"]
    run = bench.run()
    # everything is trained, and it dies before the result is written
    assert "cut short" in str(bench.train(run, *BEST, result=None).error)
    assert steps_of(run)[-1] == last and best.step in steps_of(run)
    kept = work_of(run) / "checkpoints" / f"step-{best.step:06d}" / "weights.safetensors"
    wanted = load_file(kept)
    again = bench.run(run)
    bench.train(again, *BEST)
    assert result(again) == best.files
    saved = load_file(again.folder("train") / "adapter" / "adapter_model.safetensors")
    assert len(saved) == len(wanted)
    for name, tensor in saved.items():
        own = name.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default.")
        assert (tensor == wanted[own]).all(), name
    # without the best weights there is nothing to keep: they are learned again
    os.truncate(kept, 100)
    outcome = bench.train(run, *BEST)
    assert f"the best one before it, of step {best.step}, cannot be used" in outcome.text
    assert result(run) == best.files


def open_lines(run: Run, name: str) -> list[str]:
    return (run.folder("train") / name).read_text(encoding="utf-8").splitlines()
