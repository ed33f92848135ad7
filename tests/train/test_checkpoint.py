"""Checkpoints: whole or not there, hashed, and looked into before they are used."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.train import checkpoint
from pipeline.train.checkpoint import NAME, Checkpoint


def publish(folder: Path, step: int, best: int | None = None) -> Checkpoint:
    def write(draft: Path) -> None:
        (draft / "weights.safetensors").write_bytes(bytes(range(256)) * min(step, 3))
        (draft / "deep").mkdir()
        (draft / "deep" / "trace.json").write_text(f'{{"step": {step}}}')

    return checkpoint.publish(folder, step, write, best)


def usable(folder: Path) -> list[int]:
    return [each.step for each in checkpoint.good(folder)[0]]


def bad(folder: Path) -> dict[int, str]:
    return {each.step: each.reason for each in checkpoint.good(folder)[1]}


def test_the_newest_whole_checkpoint_comes_first_also_past_a_million_steps(tmp_path: Path) -> None:
    for step in (2, 1_000_000, 999_999, 10):
        publish(tmp_path, step)
    assert usable(tmp_path) == [1_000_000, 999_999, 10, 2] and not bad(tmp_path)
    assert usable(tmp_path / "nowhere") == []


@given(place=st.integers(0), bit=st.integers(0, 7), name=st.sampled_from(["weights", "trace"]))
def test_any_flipped_bit_of_any_file_is_found(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int, name: str
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    publish(folder, 3)
    (path,) = folder.glob(f"step-000003/**/{name}.*")
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    assert usable(folder) == [] and "is not what was written" in bad(folder)[3]


@given(place=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_list_of_hashes_never_lets_another_file_pass(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("list")
    path = publish(folder, 3).folder / NAME
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    try:
        same = json.loads(data)
    except ValueError:
        same = {}
    if usable(folder):  # a blank or a letter of `null` at most: the hashes are as they were
        assert same["files"] and checkpoint.opened(path.parent).step == 3


@pytest.mark.parametrize("size", [0, 1, 100, 767])
def test_a_torn_file_is_told_by_its_size(tmp_path: Path, size: int) -> None:
    folder = publish(tmp_path, 3).folder
    os.truncate(folder / "weights.safetensors", size)
    assert bad(tmp_path) == {3: f"weights.safetensors has {size} bytes, not 768"}


def test_what_is_gone_added_or_anothers_is_named(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5, 6):
        publish(tmp_path, step)
    folder = {step: checkpoint.path_of(tmp_path, step) for step in range(1, 7)}
    (folder[1] / "deep" / "trace.json").unlink()
    (folder[2] / NAME).unlink()
    (folder[3] / "optimizer.bin").write_bytes(b"a pickle that nobody wrote")
    (folder[4] / NAME).write_bytes((folder[5] / NAME).read_bytes())
    (folder[6] / NAME).write_text("[]")
    assert usable(tmp_path) == [5]
    found = bad(tmp_path)
    assert list(found) == [6, 4, 3, 2, 1]
    assert found[1] == "deep/trace.json is gone" and found[2] == "it has no checkpoint.json"
    assert found[3] == "optimizer.bin is none of its files"
    assert found[4] == "checkpoint.json is another checkpoint's" and found[6]


def test_nothing_but_whole_steps_counts_and_drafts_are_removed(tmp_path: Path) -> None:
    publish(tmp_path, 3)
    draft = tmp_path / ".step-000006.draft"
    draft.mkdir()
    (draft / "weights.safetensors").write_bytes(b"half")
    (tmp_path / "step-12").mkdir()
    assert usable(tmp_path) == [3] and not bad(tmp_path)
    assert not draft.exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one_and_no_room_taken(
    tmp_path: Path,
) -> None:
    publish(tmp_path, 3)

    def write(draft: Path) -> None:
        (draft / "weights.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    for step in (3, 6):
        with pytest.raises(OSError, match="No space"):
            checkpoint.publish(tmp_path, step, write)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]
    assert usable(tmp_path) == [3]


def test_a_step_that_was_bad_is_written_again(tmp_path: Path) -> None:
    folder = publish(tmp_path, 3).folder
    (folder / "weights.safetensors").unlink()
    publish(tmp_path, 3)
    assert usable(tmp_path) == [3]


def test_the_two_newest_and_the_best_stay(tmp_path: Path) -> None:
    for step in (3, 6, 9, 12):
        checkpoint.drop_old(tmp_path, publish(tmp_path, step, 3))
    assert usable(tmp_path) == [12, 9, 3]
    checkpoint.drop_old(tmp_path, publish(tmp_path, 15, 15))
    # 12 may still be gone on from, and 3 holds its best
    assert usable(tmp_path) == [15, 12, 3]
    checkpoint.drop_old(tmp_path, publish(tmp_path, 18, 15))
    assert usable(tmp_path) == [18, 15]


def test_a_kill_while_one_is_removed_leaves_nothing_half_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, ignore_errors: bool) -> None:
        if path.exists():
            next(path.iterdir()).unlink()
            raise KeyboardInterrupt

    for step in (3, 6):
        publish(tmp_path, step)
    newest = publish(tmp_path, 9)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", killed)
        checkpoint.drop_old(tmp_path, newest)
    assert usable(tmp_path) == [9, 6] and not bad(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_later_one_that_was_not_used_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    for step in (3, 6, 9):
        publish(tmp_path, step)
    (checkpoint.path_of(tmp_path, 9) / NAME).unlink()
    checkpoint.drop_old(tmp_path, publish(tmp_path, 6))
    assert usable(tmp_path) == [6, 3]


def test_a_checkpoint_whose_best_one_is_bad_is_not_gone_on_from(tmp_path: Path) -> None:
    publish(tmp_path, 3, 3)
    publish(tmp_path, 6, 6)
    publish(tmp_path, 9, 6)
    publish(tmp_path, 12, 12)
    os.truncate(checkpoint.path_of(tmp_path, 6) / "weights.safetensors", 5)
    assert usable(tmp_path) == [12, 3]
    assert bad(tmp_path)[9] == "the best one before it, of step 6, cannot be used"
