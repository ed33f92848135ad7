"""Several processes: how they are asked for, share a step, stop together, and who is blamed."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.errors import PipeError
from pipeline.train.launch import Launch, check_alone, rows_at_once
from pipeline.train.launcher import blamed
from pipeline.train.together import ENDED, STOPS, held_back

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Failure:
    """What torchrun keeps of a process that failed (elastic's ProcessFailure)."""

    exitcode: int
    message: Any = "<NONE>"
    timestamp: int = 100


def raised(text: str, timestamp: int = 100) -> Failure:
    return Failure(1, {"message": text, "extraInfo": {}}, timestamp)


def process(script: str) -> "subprocess.Popen[str]":
    """Python with the script, its input and output ours."""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def test_one_process_needs_no_launcher() -> None:
    assert Launch().arguments() == ()
    assert Launch().processes == 1


def test_a_node_of_many_knows_its_place_and_the_meeting_place() -> None:
    launch = Launch(8, nodes=4, node=3, rendezvous="node0:29500")
    assert launch.processes == 32
    given = " ".join(launch.arguments())
    assert "--nproc-per-node 8 --nnodes 4 --node-rank 3" in given
    assert "--rdzv-backend static --rdzv-endpoint node0:29500" in given
    given = " ".join(Launch(8, "accelerate", 4, 3, "node0:29500").arguments())
    assert "--num_processes 32" in given and "--num_machines 4 --machine_rank 3" in given
    assert "--main_process_ip node0 --main_process_port 29500" in given


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nnodes", "2"], "--rendezvous HOST:PORT"),
        (["--nnodes", "2", "--rendezvous", "node0"], "not 'node0'"),
        (["--node-rank", "1"], "none has the number 1"),
    ],
)
def test_nodes_that_cannot_be_are_wrong_usage(options: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["train", "-r", "demo", *options])
    assert result.exit_code == 2 and said in result.output


def test_pipe_under_a_launcher_says_how_it_is_started_instead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "4")
    for command in ("train", "run"):
        result = CliRunner().invoke(main, [command, "-r", "demo"])
        assert result.exit_code == 1 and "pipe train --nproc N" in result.output
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("WORLD_SIZE", "1")
    check_alone()


@given(st.integers(1, 64), st.integers(1, 512), st.integers(1, 16))
def test_processes_share_a_step_evenly_or_refuse(most: int, batch: int, processes: int) -> None:
    try:
        rows = rows_at_once(most, batch, processes)
    except PipeError as error:
        assert batch % processes and f"divides {batch}" in error.hint
    else:
        assert 1 <= rows <= most and batch % (rows * processes) == 0
        assert all(batch % (more * processes) for more in range(rows + 1, most + 1))


def test_from_two_processes_to_one_nothing_is_cut_smaller() -> None:
    assert rows_at_once(16, 32, 2) == rows_at_once(16, 32, 1) == 16


@pytest.mark.parametrize(
    ("failures", "rank", "words"),
    [
        ({0: raised("RuntimeError: [gloo/transport/tcp/pair.cc:547] Connection closed by peer"),
          1: Failure(-signal.SIGKILL)}, 1, "killed by SIGKILL"),
        ({0: raised("RuntimeError: Connection closed by peer [10.0.0.2]:5512", timestamp=99),
          1: raised("ValueError: no such row")}, 1, "ValueError: no such row"),
        ({0: Failure(-signal.SIGABRT, timestamp=90), 2: raised("KeyError: 'x'")}, 2, "KeyError"),
        ({0: Failure(ENDED, timestamp=90), 3: Failure(7)}, 3, "exit code 7"),
        ({5: raised("ValueError: later", 101), 4: raised("ValueError: first")}, 4, "first"),
    ],
)  # fmt: skip
def test_the_cause_is_blamed_and_not_those_it_brought_down(
    failures: dict[int, Any], rank: int, words: str
) -> None:
    said = blamed(failures)
    assert said.startswith(f"Process {rank} of the training failed: ") and words in said
    assert said.count("\n") == 0


def test_a_process_ends_with_its_input() -> None:
    script = (
        "from pipeline.child import end_with_the_parent\n"
        "print('up', flush=True)\nend_with_the_parent()"
    )
    with process(script) as child:
        assert child.stdin and child.stdout and child.stdout.readline() == "up\n"
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(timeout=5) == 1


def test_a_process_ends_with_the_one_that_started_it() -> None:
    """Its input stays open: the launcher alone was killed."""
    script = (
        "import os, subprocess, sys, time\n"
        "code = 'import threading, time; from pipeline.child import end_with_the_parent as end; "
        # it has to know its parent before that one is killed
        "threading.Thread(target=end).start(); time.sleep(0.5); "
        'print("up", flush=True)\'\n'
        "subprocess.Popen([sys.executable, '-c', code])\ntime.sleep(60)"
    )
    with process(script) as launcher:
        assert launcher.stdout and launcher.stdout.readline() == "up\n"
        launcher.kill()
        assert launcher.stdout.read() == ""  # the grandchild holds it open until it dies


def test_a_request_to_stop_is_noted_and_the_launchers_own_signal_ends() -> None:
    """This test stands for the launcher: its SIGINT is a request, its SIGTERM the end."""
    script = (
        "import os, subprocess\n"
        "from pipeline.train.together import wait_for_stops\n"
        "subprocess.Popen(['kill', '-TERM', str(os.getpid())]).wait()\n"
        "wait_for_stops(lambda: print('asked', flush=True))"
    )
    with held_back(*STOPS):
        started = process(script)
    with started as child:
        assert child.stdout and child.stdout.readline() == "asked\n"  # SIGTERM, of another
        os.kill(child.pid, signal.SIGINT)
        assert child.stdout.readline() == "asked\n"
        os.kill(child.pid, signal.SIGTERM)
        assert child.wait(timeout=5) == ENDED


STUB = """#!/bin/bash
echo "${SLURM_NODEID:-${SKYPILOT_NODE_RANK:-first}}: $*" >> "$CALLS"
[ "$1" != train ] || exit "${TRAIN_CODE:-0}"
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
code=0
for node in 1 0; do SLURM_NODEID=$node "$@" || code=$?; done
exit $code
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf 'alpha\\nbeta\\n'; else echo "scontrol: $*" >> "$CALLS"; fi
"""


def calls_of(tmp_path: Path, command: list[str], **environment: str) -> list[str]:
    """What the script asked of `pipe`, on which node."""
    for name, text in {"pipe": STUB, "srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls"
    values = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), **environment}
    subprocess.run(command, cwd=tmp_path, env=values, check=True)
    return calls.read_text().splitlines()


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "x",
    "SLURM_NNODES": "2",
    "SLURM_GPUS_ON_NODE": "4",
}


def test_the_slurm_script_trains_on_all_nodes_and_does_the_rest_on_one(tmp_path: Path) -> None:
    script = [str(ROOT / "scripts" / "launch" / "slurm.sh"), "--set", "train.epochs=2"]
    found = calls_of(tmp_path, script, PIPE=str(tmp_path / "pipe"), **SLURM)
    at = "--rendezvous alpha:20007 --set train.epochs=2"
    assert found == [
        "first: prepare --set train.epochs=2",
        f"1: train --nproc 4 --nnodes 2 --node-rank 1 {at}",
        f"0: train --nproc 4 --nnodes 2 --node-rank 0 {at}",
        "first: export --no-register --set train.epochs=2",
        "first: eval --set train.epochs=2",
    ]


def test_a_slurm_job_that_was_told_to_stop_goes_back_into_the_queue(tmp_path: Path) -> None:
    script = [str(ROOT / "scripts" / "launch" / "slurm.sh")]
    found = calls_of(tmp_path, script, PIPE=str(tmp_path / "pipe"), TRAIN_CODE="130", **SLURM)
    assert found[-1] == "scontrol: requeue 7" and not any("export" in each for each in found)
    assert not list(tmp_path.glob(".pipe-*"))


def test_a_slurm_job_whose_training_fails_fails_and_does_not_go_on(tmp_path: Path) -> None:
    script = [str(ROOT / "scripts" / "launch" / "slurm.sh")]
    with pytest.raises(subprocess.CalledProcessError):
        calls_of(tmp_path, script, PIPE=str(tmp_path / "pipe"), TRAIN_CODE="1", **SLURM)
    assert "export" not in (tmp_path / "calls").read_text()


@pytest.mark.parametrize("node", ["0", "1"])
def test_the_skypilot_task_trains_on_all_nodes_and_does_the_rest_on_one(
    tmp_path: Path, node: str
) -> None:
    task = yaml.safe_load((ROOT / "scripts" / "launch" / "skypilot.yaml").read_text())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "pipe").symlink_to(tmp_path / "pipe")
    given = {
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": node,
        "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "8",
    }  # fmt: skip
    environment = task["envs"] | {"SHARED": str(tmp_path)} | given
    found = calls_of(tmp_path, ["bash", "-c", task["run"]], **environment)
    training = (
        f"{node}: train -r llama3.2-3b-r1 --nproc 8 --nnodes 2 --node-rank {node} "
        "--rendezvous 10.0.0.1:29500"
    )
    first = [each.partition(" -r")[0] for each in found]
    assert training in found
    expected = ["0: prepare", "0: train", "0: export", "0: eval"] if node == "0" else ["1: train"]
    assert first == expected
