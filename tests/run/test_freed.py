"""Files that were freed are known, and leave their stage as it was."""

from pathlib import Path

import pytest

from pipeline.errors import ChangedInput, FreedInput
from pipeline.run import Manifest, Run
from pipeline.run.disk import bytes_freed
from pipeline.run.freed import NAME, free_files, restore_files


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "r")
    with run.publish("data") as draft:
        for name in ("model/a.safetensors", "model/b.safetensors", "metrics.jsonl"):
            (draft.folder / name).parent.mkdir(exist_ok=True)
            (draft.folder / name).write_text(name)
        draft.manifest = Manifest("data", {}, {})
    return run


def test_a_freed_file_is_missed_only_by_who_needs_it(run: Run) -> None:
    folder = run.folder("data")
    free_files(folder, ["model/b.safetensors"])
    free_files(folder, ["model/a.safetensors"])
    assert run.freed("data") == ["model/a.safetensors", "model/b.safetensors"]
    run.check_there("data", ["metrics.jsonl"])
    assert run.require("data", complete=False).outputs.keys() > set(run.freed("data"))
    with pytest.raises(FreedInput, match=r"model/a\.safetensors is not there") as caught:
        run.require("data")
    assert caught.value.hint == "Make it again: pipe prepare --force"


def test_what_is_there_is_verified_though_others_are_freed(run: Run) -> None:
    free_files(run.folder("data"), ["model/a.safetensors"])
    (run.folder("data") / "model" / "b.safetensors").write_text("rot")
    with pytest.raises(ChangedInput, match=r"b\.safetensors is not the file"):
        run.require("data", complete=False)


def test_restored_files_make_the_stage_whole(run: Run, tmp_path: Path) -> None:
    name = "model/a.safetensors"
    free_files(run.folder("data"), [name])
    (tmp_path / "made" / "model").mkdir(parents=True)
    (tmp_path / "made" / name).write_text(name)
    restore_files(run.folder("data"), tmp_path / "made")
    assert run.require("data").outputs[name].bytes == len(name)
    assert not (run.folder("data") / NAME).exists()
    # from now on its loss is a change again
    (run.folder("data") / name).unlink()
    with pytest.raises(ChangedInput, match="is gone"):
        run.require("data", complete=False)


@pytest.mark.parametrize("text", ["", "{", "7", '{"a": 1}'])
def test_a_torn_record_frees_nothing(run: Run, text: str) -> None:
    (run.folder("data") / NAME).write_text(text)
    (run.folder("data") / "metrics.jsonl").unlink()
    with pytest.raises(ChangedInput, match="is gone"):
        run.require("data", complete=False)


def test_bytes_behind_a_link_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 999)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "own").write_bytes(b"x" * 7)
    (tmp_path / "work" / "link").symlink_to(tmp_path / "large")
    assert bytes_freed(tmp_path / "work") == 7
