"""`pipe eval` with real engines: killed and gone on with, other people's questions and metrics."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.e2e.conftest import NOBODY, Demo

pytestmark = pytest.mark.e2e

SAMPLED = [
    "--limit", "30", "--samples", "2", "--temperature", "0.6", "--engine", "Q8_0",
    "--engine", "q4_k_m", "--set", "eval.batch_size=2",
]  # fmt: skip
LEG = 8
"""Replies that are asked for at a time at a batch of 2."""


@pytest.fixture
def copy(demo: Demo, tmp_path: Path) -> Demo:
    """The demo's run in a folder of its own, without its scores and without a server."""
    shutil.copytree(demo.run.root, tmp_path / "runs" / "demo")
    shutil.rmtree(tmp_path / "runs" / "demo" / "eval")
    shutil.rmtree(tmp_path / "runs" / "demo" / ".eval.work", ignore_errors=True)
    (tmp_path / "pipe.yaml").write_text("extends: demo\n")
    return Demo(tmp_path, NOBODY)


def scores(demo: Demo) -> dict[str, bytes]:
    names = ("results.json", "answers.jsonl", "manifest.json")
    return {name: (demo.run.folder("eval") / name).read_bytes() for name in names}


def kill_in_the_second_leg(demo: Demo) -> None:
    """SIGKILL once the first leg of the first engine is on disk."""
    command = [sys.executable, "-m", "pipeline", "eval", *SAMPLED]
    quiet = subprocess.DEVNULL
    environment = {**os.environ, "OLLAMA_HOST": NOBODY}
    process = subprocess.Popen(
        command, cwd=demo.folder, env=environment, stdout=quiet, stderr=quiet
    )
    deadline = monotonic() + 120
    while not any(
        path.read_text().count("\n") >= LEG
        for path in demo.run.root.glob(".eval.work/*/Q8_0.answers.jsonl")
    ):
        assert process.poll() is None and monotonic() < deadline
        sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_and_gone_on_with_it_leaves_the_same_bytes(copy: Demo) -> None:
    kill_in_the_second_leg(copy)
    assert not copy.run.folder("eval").exists()
    done = copy.pipe("eval", *SAMPLED)
    assert re.search(r"eval Q8_0 goes on with \d+ answers", done.stderr)
    resumed = scores(copy)
    fresh = copy.pipe("eval", *SAMPLED, "--force")
    assert "goes on" not in fresh.stderr
    assert scores(copy) == resumed
    lines = [json.loads(line) for line in resumed["answers.jsonl"].splitlines()]
    assert len(lines) == 2 * 30 * 2
    texts = [line["text"] for line in lines if line["engine"] == "Q8_0"]
    assert texts[0::2] != texts[1::2]  # the samples are draws, not copies


def test_own_questions_and_an_own_metric_on_one_file(copy: Demo, tmp_path: Path) -> None:
    rows = list(map(json.loads, (copy.run.folder("data") / "test.jsonl").open()))[:4]
    short = [{key: row[key] for key in ("question", "reference")} for row in rows]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in short))
    (tmp_path / "ends.py").write_text(
        "def metric(row, reply):\n    return reply.endswith('.') and row['reference'] in reply\n"
    )
    arguments = ["eval", "--task", "mine.jsonl", "--engine", "Q8_0", "--json"]
    results = json.loads(copy.pipe(*arguments).stdout)
    assert results["items"] == 4 and list(results["engines"]) == ["Q8_0"]
    assert results["engines"]["Q8_0"]["exact_match"]["value"] >= 0.5
    assert "perplexity" not in results["engines"]["Q8_0"]  # no replies to find likely
    done = copy.pipe(*arguments, "--metric", "ends.py")
    assert "goes on with 4 answers" in done.stderr
    assert json.loads(done.stdout)["engines"]["Q8_0"]["ends"]["value"] >= 0.5
    wrong = copy.pipe("eval", "--engine", "Q9", code=1)
    assert "There is no engine Q9; there is: base, adapter, merged, Q8_0" in wrong.stderr
