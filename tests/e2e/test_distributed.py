"""Two training processes on one CPU: the same result as one, and one clear end for both."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.run import Run
from pipeline.train.logs import read_lines
from tests.e2e.conftest import NOBODY
from tests.support.training import steps_of, write_recipe

pytestmark = pytest.mark.e2e

TRAIN = {
    "max_steps": 6,
    "batch_size": 4,
    "gradient_accumulation": 1,
    "save_every": 2,
    "lora": {"r": 8, "alpha": 16},
}
"""6 steps of 8 rows for two processes."""
ALONE = ("--set", "train.gradient_accumulation=2")
"""As many rows in a step for one process."""


class Pipe:
    """`pipe` in the background, in a folder with a prepared run."""

    def __init__(self, run: Run, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments, "--run", run.name],
            cwd=run.root.parents[1],
            env={**os.environ, "OLLAMA_HOST": NOBODY},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._family: dict[int, psutil.Process] = {}

    def workers(self) -> dict[int, psutil.Process]:
        """The training processes by rank."""
        found = {}
        for process in psutil.Process(self._process.pid).children(recursive=True):
            try:
                if "pipeline.train.worker" in process.cmdline()[-1]:
                    found[int(process.environ()["RANK"])] = process
                self._family[process.pid] = process
            except (psutil.NoSuchProcess, psutil.AccessDenied, IndexError, KeyError):
                continue  # it was just born, or just died
        return found

    def after(self, ready: Callable[[], bool]) -> "Pipe":
        """Wait until it is as asked for."""
        end = time.monotonic() + 120
        while not ready():
            assert self._process.poll() is None, self._process.communicate()
            assert time.monotonic() < end, "it took too long"
            time.sleep(0.05)
        return self

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, code: int, seconds: float = 120) -> str:
        """What it said until it ended so; no process that it started is left."""
        _, said = self._process.communicate(timeout=seconds)
        assert self._process.returncode == code, said
        assert "Traceback" not in said
        end = time.monotonic() + 3
        while alive := [each for each in self._family.values() if lives(each)]:
            assert time.monotonic() < end, f"{alive} outlive it"
            time.sleep(0.05)
        return said


def lives(process: psutil.Process) -> bool:
    """An orphan that nobody has buried yet is dead."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("together")
    write_recipe(folder, TRAIN)
    run = Run(folder / "runs" / "prepared")
    Pipe(run, "prepare").end(0)
    return run


@pytest.fixture(scope="module")
def alone(prepared: Run) -> Run:
    """What one process learns from as many rows a step."""
    run = copied(prepared, "alone")
    Pipe(run, "train", *ALONE).end(0)
    return run


def copied(run: Run, name: str) -> Run:
    return Run(Path(shutil.copytree(run.root, run.root.with_name(name))))


def learned(run: Run) -> list[dict[str, Any]]:
    return read_lines(run.folder("train") / "metrics.jsonl")


def assert_alike(found: Run, expected: Run) -> None:
    """Losses, norms and losses on other rows: sums in another order, no more."""
    assert [sorted(line) for line in learned(found)] == [sorted(line) for line in learned(expected)]
    for one, other in zip(learned(found), learned(expected), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_two_nodes_learn_what_one_process_learns(prepared: Run, alone: Run) -> None:
    run = copied(prepared, "nodes")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ("--nnodes", "2", "--rendezvous", f"127.0.0.1:{port}", "--node-rank")
    second = Pipe(run, "train", *options, "1")  # it comes first, and waits
    first = Pipe(run, "train", *options, "0")
    assert "Trained 6 steps" in first.end(0)
    said = second.end(0)
    assert "Waiting for node 0" in said and "node 0 publishes it" in said
    assert run.require("train").facts["processes"] == 2
    assert_alike(run, alone)


def test_a_killed_process_ends_all_with_one_error_and_one_goes_on(
    prepared: Run, alone: Run
) -> None:
    run = copied(prepared, "killed")
    pipe = Pipe(run, "train", "--nproc", "2").after(lambda: bool(steps_of(run)))
    pipe.workers()[1].send_signal(signal.SIGKILL)
    said = pipe.end(1, seconds=10)
    assert said.count("pipe: ") == 1
    assert "pipe: Process 1 of the training failed: it was killed by SIGKILL." in said
    assert "Go on from the last checkpoint: pipe train --run killed, with --nproc" in said
    assert run.manifest("train") is None
    said = Pipe(run, "train").end(0)
    assert "Going on from the checkpoint of step" in said
    facts = run.require("train").facts
    assert (facts["processes"], facts["batch_size"], facts["gradient_accumulation"]) == (1, 4, 2)
    assert_alike(run, alone)


def test_sigterm_ends_both_after_the_same_step_and_a_killed_pipe_leaves_none(
    prepared: Run,
) -> None:
    run = copied(prepared, "stopped")
    command = ("train", "--nproc", "2", "--launcher", "accelerate")
    pipe = Pipe(run, *command).after(lambda: bool(steps_of(run)))
    assert len(pipe.workers()) == 2
    pipe.send(signal.SIGTERM)
    said = pipe.end(130)
    found = re.search(r"Stopped after step (\d)", said)
    assert found and steps_of(run)[-1] == int(found[1])
    assert run.manifest("train") is None

    pipe = Pipe(run, *command)
    pipe.after(lambda: len(pipe.workers()) == 2)
    pipe.send(signal.SIGKILL)
    pipe.end(-signal.SIGKILL, seconds=2)
