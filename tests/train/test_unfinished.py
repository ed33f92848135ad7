"""The folder of a training under way: pinned to its work, gone on with, or refused."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ChangedInput, PipeError
from pipeline.recipe.training import UNSEEN, Train
from pipeline.run import Entry, Manifest, Note, Run
from pipeline.train import checkpoint
from pipeline.train.logs import write_lines
from pipeline.train.unfinished import FOLDER, Unfinished, unfinished


def plan(seed: int = 1, sha: str = "a" * 64, torch: str = "2.14", **train: Any) -> Manifest:
    values = Train.model_validate(train).model_dump(mode="json", exclude=set(UNSEEN))
    return Manifest(
        stage="train",
        section={"train": values, "model": {"base": "b"}},
        inputs={"data/manifest.json": Entry(sha, 1)},
        seed=seed,
        versions={"torch": torch},
    )


def begun(run: Run, *said: list[str], force: bool = False, **changes: Any) -> Unfinished:
    def emit(event: Any) -> None:
        assert isinstance(event, Note)
        for each in said:
            each.append(event.text)

    return unfinished(run, plan(**changes), emit, force=force)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def checkpointed(work: Unfinished, *steps: int) -> None:
    def write(draft: Path) -> None:
        (draft / "w").write_text("w" * 9)

    for step in steps:
        checkpoint.publish(work.checkpoints, step, write)


def test_the_same_work_is_gone_on_with(run: Run) -> None:
    said: list[str] = []
    checkpointed(begun(run), 3, 6)
    work = begun(run, said)
    assert work.folder == run.root / FOLDER and not said
    assert work.resume() == str(work.checkpoints / "step-000006")
    assert said == ["Going on from the checkpoint of step 6."]


def test_other_work_is_refused_with_every_difference(run: Run) -> None:
    checkpointed(begun(run), 3)
    with pytest.raises(ChangedInput) as caught:
        begun(run, seed=2, sha="b" * 64, learning_rate=0.5, lora={"r": 4}, max_steps=7)
    assert caught.value.message.splitlines()[1:] == [
        "  inputs.data/manifest.json: aaaaaaaaaaaa, now bbbbbbbbbbbb",
        "  train.learning_rate: 0.0002, now 0.5",
        "  train.lora.r: 16, now 4",
        "  train.max_steps: None, now 7",
        "  seed: 1, now 2",
    ]
    assert "pipe train --force" in caught.value.hint
    assert [each.step for each in checkpoint.good(run.root / FOLDER / "checkpoints")[0]] == [3]


def test_keys_that_change_nothing_that_is_learned_may_change(run: Run) -> None:
    checkpointed(begun(run), 3)
    work = begun(run, save_every=7, sample_every=2, sample_rows=1, trackers=["tensorboard"])
    assert work.newest()


def test_every_other_key_of_train_is_pinned(run: Run) -> None:
    """A key that is neither pinned nor known to change nothing would train another model."""
    pinned = plan().section["train"]
    assert set(pinned) | set(UNSEEN) == set(Train.model_fields) and not set(pinned) & set(UNSEEN)


def test_force_gives_it_up(run: Run) -> None:
    checkpointed(begun(run), 3)
    work = begun(run, force=True, seed=2)
    assert work.newest() is None and begun(run, seed=2)


def test_other_versions_are_told_and_taken(run: Run) -> None:
    said: list[str] = []
    checkpointed(begun(run), 3)
    assert begun(run, said, torch="2.15").newest()
    assert said == [
        "Other versions than it was begun with:  torch: 2.14, now 2.15. Last bits may differ."
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"work": 1, "versions": {}}', '{"work": {}}'])
def test_pins_that_cannot_be_read_are_an_error_with_the_cure(run: Run, text: str) -> None:
    begun(run).folder.joinpath("pins.json").write_text(text)
    with pytest.raises(PipeError) as caught:
        begun(run)
    assert "--force" in caught.value.hint


def test_a_folder_that_died_before_it_was_pinned_is_begun_anew(run: Run) -> None:
    folder = run.root / FOLDER / "checkpoints"
    folder.mkdir(parents=True)
    assert begun(run).newest() is None and not folder.exists()


def test_only_what_is_newer_than_the_one_taken_is_told(run: Run) -> None:
    said: list[str] = []
    work = begun(run, said)
    checkpointed(work, 3, 6, 9)
    for step in (3, 9):
        os.truncate(work.checkpoints / f"step-00000{step}" / "w", 1)
    assert work.resume() == str(work.checkpoints / "step-000006")
    bad = work.checkpoints / "step-000009"
    assert said == [
        f"Checkpoint {bad} is not used: w has 1 bytes, not 9.",
        "Going on from the checkpoint of step 6.",
    ]


def test_where_none_can_be_used_that_is_said(run: Run) -> None:
    said: list[str] = []
    work = begun(run, said)
    assert work.resume() is None and not said
    checkpointed(work, 3)
    (work.checkpoints / "step-000003" / "w").unlink()
    assert work.resume() is None
    assert said[-1] == "No checkpoint can be used: the training begins anew."


def test_logs_go_back_to_the_checkpoint_and_a_half_made_result_is_removed(run: Run) -> None:
    work = begun(run)
    checkpointed(work, 3)
    for step in range(1, 6):
        work.log({"step": step, "loss": 1.0}, {"step": step, "seconds": 0.5})
    work.log({"step": 2, "eval_loss": 1.0}, {})
    with (work.folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 6, "lo\x00\x00')
    (work.folder / "result").mkdir()
    assert work.resume()
    assert [line["step"] for line in work.speeds()] == [1, 2, 3]
    lines = (work.folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4 and not (work.folder / "result").exists()


def test_what_memory_allowed_and_the_step_it_began_with_are_remembered(run: Run) -> None:
    work = begun(run)
    assert work.batch_size(8) == 8 and work.global_batch(16) == 16
    work.keep_batch_size(2)
    again = begun(run)
    assert again.batch_size(8) == 2 and again.batch_size(1) == 1
    assert again.global_batch(32) == 16  # twice the processes take the same steps
    assert begun(run, force=True).batch_size(8) == 8


def test_a_plan_reads_back_as_the_same_work(run: Run) -> None:
    """Tuples, None and numbers as JSON gives them back."""
    lora = {"target_modules": ("q_proj", "v_proj"), "dropout": 0.1}
    begun(run, lora=lora, learning_rate=1e-4, max_grad_norm=1)
    assert begun(run, lora=lora, learning_rate=0.0001, max_grad_norm=1.0)
    assert replace(plan(), counts={"steps": 3}).same_work(plan())


def test_lines_that_are_gone_are_no_lines(run: Run) -> None:
    work = begun(run)
    assert work.speeds() == []
    write_lines(work.folder / "speed.jsonl", [])
    assert work.speeds() == []
