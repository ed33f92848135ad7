"""A second prepare: when nothing is done again, and what a failure leaves of the first."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from pipeline.data import prepare
from pipeline.data.work import gather
from pipeline.errors import PipeError
from pipeline.run import Note, Progress, Run, silent
from tests.data.support import contents, recipe_of, record, write_rows


def test_two_runs_are_the_same_bytes(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(100)])
    recipe = recipe_of(base, path, eval_share=0.1)
    runs = [Run(tmp_path / "a"), Run(tmp_path / "b")]
    for run in runs:
        prepare(recipe, run, silent)
    assert contents(runs[0]) == contents(runs[1])
    assert "data/manifest.json" in contents(runs[0])


def test_a_second_prepare_does_nothing(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(30)])
    run, events = Run(tmp_path / "run"), []
    first = prepare(recipe_of(base, path), run, silent)
    assert prepare(recipe_of(base, path), run, events.append) == first
    assert events == [Note("data is up to date")]


@pytest.mark.parametrize("change", ["source", "output", "tokenizer", "length", "force"])
def test_what_changed_is_prepared_again(base, tmp_path, change):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(30)])
    run, events = Run(tmp_path / "run"), []
    prepare(recipe_of(base, path), run, silent)
    if change == "source":
        write_rows(path, [record(n) for n in range(31)])
    if change == "output":
        (run.folder("data") / "train.jsonl").write_text("")
    if change == "tokenizer":
        (base / "tokenizer_config.json").write_text('{"a": 1}')
    length = 257 if change == "length" else 256
    recipe = recipe_of(base, path, max_seq_length=length)
    prepare(recipe, run, events.append, force=change == "force")
    assert any(isinstance(event, Progress) for event in events)


def test_a_broken_manifest_is_made_again(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(30)])
    run = Run(tmp_path / "run")
    first = prepare(recipe_of(base, path), run, silent)
    (run.folder("data") / "manifest.json").write_text("{")
    assert prepare(recipe_of(base, path), run, silent) == first


def test_an_interrupt_leaves_what_was_there(base, tmp_path, monkeypatch):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(30)])
    run = Run(tmp_path / "run")
    prepare(recipe_of(base, path), run, silent)
    before = contents(run)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(gather, "parts_of", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(recipe_of(base, path), run, silent, force=True)
    assert contents(run) == before


def test_a_disk_without_room_is_said_before_a_row_is_read(base, tmp_path, monkeypatch):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(30)])
    usage = shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000)
    monkeypatch.setattr("pipeline.run.disk.shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr(gather, "parts_of", pytest.fail)
    with pytest.raises(PipeError) as error:
        prepare(recipe_of(base, path), Run(tmp_path / "run"), silent)
    assert error.value.message.startswith("Preparing the rows needs 0.0")
    assert error.value.message.endswith(" GB are free.")
    assert not Run(tmp_path / "run").folder("data").exists()


def test_a_disk_that_is_full_half_way_keeps_what_was_there(base, tmp_path, monkeypatch):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(30)])
    run, recipe = Run(tmp_path / "run"), recipe_of(base, path)
    prepare(recipe, run, silent)
    before = contents(run)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PipeError, match=r"data could not be written: .*No space left") as error:
        prepare(recipe, run, silent, force=True)
    assert "make room" in error.value.hint
    assert contents(run) == before
