"""Many chunks: every core, the same bytes; an interrupted prepare goes on where it was."""

import os
import subprocess
import sys
import time

import pytest

from pipeline.data.prepare import PARTS
from pipeline.data.read import chunks
from pipeline.data.work import pool
from pipeline.errors import PipeError
from pipeline.run import Note, Run
from tests.data.support import contents, prepared, recipe_of, record, rows_of, write_rows


@pytest.fixture
def small_chunks(monkeypatch):
    """Ten records a chunk."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 10)


def source(tmp_path, count=300):
    bad = [b"{", record(1, reannotated_assistant_content="It is.")]
    return write_rows(tmp_path / "rows.jsonl", [*bad, *[record(n) for n in range(count)]])


def notes(events):
    return [event.text for event in events if isinstance(event, Note)]


def test_worker_processes_give_the_bytes_that_one_process_gives(
    base, tmp_path, small_chunks, monkeypatch
):
    recipe = recipe_of(base, source(tmp_path), eval_share=0.1)
    many = prepared(tmp_path / "many", recipe)
    monkeypatch.setattr(pool, "ALONE", 10**6)
    assert contents(prepared(tmp_path / "one", recipe)) == contents(many)
    assert len(rows_of(many, "train")) > 200


@pytest.mark.parametrize("done", [1, 5, 20])
def test_an_interrupted_prepare_goes_on_to_the_same_bytes(
    base, tmp_path, small_chunks, monkeypatch, done
):
    recipe = recipe_of(base, source(tmp_path), eval_share=0.1)
    monkeypatch.setattr(pool, "ALONE", 10**6)
    whole = contents(prepared(tmp_path / "whole", recipe))
    do, calls = pool.Desk.do, []

    def interrupted(desk, job):
        calls.append(job)
        if len(calls) > done:
            raise KeyboardInterrupt
        return do(desk, job)

    monkeypatch.setattr(pool.Desk, "do", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path / "run", recipe)
    assert not Run(tmp_path / "run").folder("data").exists()
    monkeypatch.setattr(pool.Desk, "do", do)
    events = []
    run = prepared(tmp_path / "run", recipe, events.append)
    path = recipe.data.sources[0].dataset
    assert notes(events) == [f"{path}: goes on after {10 * done} records prepared before."]
    assert contents(run) == whole
    assert not (run.root / PARTS).exists()


def test_a_torn_part_is_made_again(base, tmp_path, small_chunks, monkeypatch):
    monkeypatch.setattr(pool, "ALONE", 10**6)
    good = recipe_of(base, source(tmp_path))
    whole = contents(prepared(tmp_path / "whole", good))
    strict = recipe_of(base, {"dataset": str(tmp_path / "rows.jsonl"), "max_loss": 0.0})
    run = Run(tmp_path / "run")
    with pytest.raises(PipeError, match="2 of 302 rows"):
        prepared(run.root, strict)
    parts = sorted(run.root.glob(f"{PARTS}/*/*.arrow"))
    content = parts[3].read_bytes()
    parts[3].write_bytes(content[: len(content) // 2])
    events = []
    assert (
        contents(prepared(run.root, good, events.append))["data/train.jsonl"]
        == (whole["data/train.jsonl"])
    )
    assert notes(events)[0].endswith("goes on after 30 records prepared before.")


@pytest.mark.parametrize(
    "change", [{"eval_share": 0.2}, {"filters": {"repetition": False}}, {"seed": 1}]
)
def test_parts_of_other_work_are_not_gone_on_from(
    base, tmp_path, small_chunks, monkeypatch, change
):
    monkeypatch.setattr(pool, "ALONE", 10**6)
    path = source(tmp_path)
    with pytest.raises(PipeError):
        prepared(tmp_path / "run", recipe_of(base, {"dataset": str(path), "max_loss": 0.0}))
    seed = change.pop("seed", None)
    other = recipe_of(base, {"dataset": str(path), "seed": seed}, **change)
    events = []
    prepared(tmp_path / "run", other, events.append)
    assert not [text for text in notes(events) if text.startswith(str(path))]


DRIVER = """
import sys
from pathlib import Path
from pipeline.data.read import chunks
from pipeline.data import prepare
from pipeline.recipe import Recipe
from pipeline.run import Run, silent
chunks.CHUNK_ROWS = 10
if __name__ == "__main__":
    prepare(Recipe.model_validate_json(sys.stdin.read()), Run(Path(sys.argv[1])), silent)
"""


@pytest.mark.e2e
def test_a_killed_prepare_leaves_no_process_and_goes_on(base, tmp_path, small_chunks):
    recipe = recipe_of(base, source(tmp_path, 1500))
    whole = contents(prepared(tmp_path / "whole", recipe))
    run = tmp_path / "run"
    (tmp_path / "driver.py").write_text(DRIVER)
    child = subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py"), str(run)],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    assert child.stdin
    child.stdin.write(recipe.model_dump_json().encode())
    child.stdin.close()
    wait_for(lambda: len(list(run.glob(f"{PARTS}/*/*.arrow"))) > 20)
    child.kill()
    child.wait()
    wait_for(lambda: not alive(child.pid))
    events = []
    assert contents(prepared(run, recipe, events.append)) == whole
    assert "goes on after" in notes(events)[0]


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def alive(group):
    """Whether any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
