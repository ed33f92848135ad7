"""A stage is published whole or not at all, and read only as it was written."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import ChangedInput, MissingInput, PipeError, RunLocked
from pipeline.recipe import load
from pipeline.run import Entry, Manifest, Run

PLAN = Manifest(stage="data", section={"limit": 3}, inputs={}, seed=1)


def publish(run: Run, text: str, plan: Manifest = PLAN) -> None:
    with run.publish("data") as draft:
        (draft.folder / "train.jsonl").write_text(text)
        draft.manifest = plan


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs" / "r")


def test_published_files_are_in_the_manifest(run: Run) -> None:
    publish(run, "one\n")
    manifest = run.require("data")
    assert list(manifest.outputs) == ["train.jsonl"]
    assert manifest.outputs["train.jsonl"].bytes == 4
    assert {path.name for path in run.folder("data").iterdir()} == {
        "train.jsonl",
        "manifest.json",
        "timing.json",
    }


def test_same_work_gives_the_same_bytes_but_for_the_times(run: Run) -> None:
    publish(run, "one\n")
    first = (run.folder("data") / "manifest.json").read_bytes()
    publish(run, "one\n")
    assert (run.folder("data") / "manifest.json").read_bytes() == first


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("boom")])
def test_a_failure_leaves_what_was_there(run: Run, error: BaseException) -> None:
    publish(run, "old\n")
    with pytest.raises(type(error)), run.publish("data") as draft:
        (draft.folder / "train.jsonl").write_text("half")
        raise error
    assert (run.folder("data") / "train.jsonl").read_text() == "old\n"
    assert [path.name for path in run.root.iterdir()] == ["data"]


def test_a_full_disk_is_one_clear_error(run: Run) -> None:
    with pytest.raises(PipeError, match="could not be written"), run.publish("data"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert run.manifest("data") is None


def test_a_missing_stage_names_its_command(run: Run) -> None:
    with pytest.raises(MissingInput) as caught:
        run.require("train")
    assert caught.value.hint == "Run: pipe train"


@pytest.mark.parametrize("text", ["ond\n", "longer\n"])
def test_a_changed_file_is_named_with_the_command_that_remakes_it(run: Run, text: str) -> None:
    publish(run, "one\n")
    (run.folder("data") / "train.jsonl").write_text(text)
    with pytest.raises(ChangedInput, match=r"train\.jsonl is not the file") as caught:
        run.require("data")
    assert caught.value.hint == "Run: pipe prepare --force"
    (run.folder("data") / "train.jsonl").unlink()
    with pytest.raises(ChangedInput, match="is gone"):
        run.require("data")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "data"}', '{"schema": 9}'])
def test_a_torn_manifest_is_an_error_not_a_crash(run: Run, text: str) -> None:
    publish(run, "one\n")
    (run.folder("data") / "manifest.json").write_text(text)
    with pytest.raises(ChangedInput):
        run.require("data")
    assert not run.is_done(PLAN)


def test_done_means_same_section_inputs_format_and_seed(run: Run) -> None:
    assert not run.is_done(PLAN)
    publish(run, "one\n")
    assert run.is_done(PLAN)
    assert not run.is_done(replace(PLAN, section={"limit": 4}))
    assert not run.is_done(replace(PLAN, seed=2))
    assert not run.is_done(replace(PLAN, chat_format={"name": "x", "sha256": "y"}))
    (run.folder("data") / "train.jsonl").write_text("two\n")
    assert not run.is_done(PLAN)


def test_two_processes_do_not_work_in_one_run(run: Run) -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline.run import Run\n"
        f"with Run(Path({str(run.root)!r})).lock(): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout and other.stdout.readline() == "held\n"
    with pytest.raises(RunLocked, match=str(other.pid)), run.lock():
        pass
    other.kill()
    other.wait()
    with run.lock():
        pass


def test_a_crash_between_the_two_renames_loses_nothing(run: Run) -> None:
    publish(run, "one\n")
    run.folder("data").rename(run.root / ".data.old")
    with run.lock():
        assert run.require("data")


def test_what_a_crash_after_both_renames_left_takes_no_disk_for_long(run: Run) -> None:
    publish(run, "one\n")
    left = run.root / ".data.old"
    left.mkdir()
    (left / "train.jsonl").write_text("the one before\n")
    with run.lock():
        assert not left.exists()
        assert (run.folder("data") / "train.jsonl").read_text() == "one\n"


def test_times_are_kept_apart(run: Run) -> None:
    with run.publish("eval") as draft:
        draft.manifest = replace(PLAN, stage="eval")
        draft.timing["base"] = 1.23456
    timing = json.loads((run.folder("eval") / "timing.json").read_text())
    assert timing["base"] == 1.235 and timing["seconds"] >= 0
    finished = datetime.fromisoformat(timing["finished"])
    assert finished.tzinfo == UTC and abs(datetime.now(UTC) - finished) < timedelta(minutes=1)


def test_a_stage_made_from_another_version_of_its_input_is_refused(run: Run) -> None:
    """After a new prepare, the old training does not count, nor does what came from it."""
    publish(run, "one\n")
    for stage, need in (("train", "data"), ("export", "train")):
        with run.publish(stage) as draft:
            draft.manifest = Manifest(stage=stage, section={}, inputs=run.input_entry(need))
    assert run.require("export")
    publish(run, "two\n")
    for stage in ("train", "export"):
        with pytest.raises(ChangedInput, match="made from another data"):
            run.require(stage)


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a b"])
def test_a_run_is_named_as_a_folder(name: str) -> None:
    with pytest.raises(PipeError):
        Run.of(load("demo").recipe, name)


def test_a_manifest_follows_a_plan_that_says_less_and_none_that_says_otherwise() -> None:
    entry = Entry("ab", 1)
    made = Manifest("eval", {"eval": {"limit": 3}, "num_ctx": 64}, {"base": entry}, seed=1)
    less = replace(made, section={"eval": {"limit": 3}}, inputs={})
    assert made.follows(made) and made.follows(less) and not less.follows(made)
    assert made.same_work(made) and not made.same_work(less) and not less.same_work(made)
    for other in (
        replace(less, section={"eval": {"limit": 4}}),
        replace(less, section={"served": {}}),
        replace(less, inputs={"base": Entry("cd", 1)}),
        replace(less, chat_format={"name": "another"}),
        replace(less, stage="check"),
        replace(less, seed=2),
    ):
        assert not made.follows(other)
