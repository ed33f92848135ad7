"""SIGKILL at random moments of the demo, the same command again: the same bytes?

    python scripts/kill_test.py --kills 30 --ollama --out benchmarks/kill_test.json

Prepare, train, export and register of the demo in 20 steps run once in one go; each kill then has a
copy of what the stages before it left. Killed is the process of `pipe` alone, or its whole group;
the same command follows at once, while what it had started may still be dying, and the commands
after it. Counted as the same: every file of the run but those that hold times, no file more, and
with --ollama the digests and the answer of the models in a real server. One fact may differ: that
a file was at the server already, where the killed registration had sent it.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from pipeline.run import Run, Stage
from scripts.kill_bench import (
    Bench,
    differences,
    fresh,
    half_written,
    make_whole,
    opened,
    there_now,
)
from scripts.record_run import processor

TRIES = 12
"""Until a kill comes before the command's end; each aims earlier."""

PLAN: tuple[tuple[Stage, str], ...] = (
    ("train", "checkpoint"),
    ("export", "writing"),
    ("serve", "writing"),
    ("train", "any"),
    ("data", "any"),
    ("train", "publishing"),
    ("export", "any"),
    ("train", "checkpoint"),
    ("serve", "any"),
    ("data", "writing"),
    ("train", "any"),
)
"""Stage and kind of moment of each kill, again from the start after the last."""


@dataclass(frozen=True)
class Moment:
    """`after` seconds from the start, or from when a path (a pattern) is first there."""

    stage: Stage
    path: str | None
    after: float
    group: bool
    """The whole process group, as a closed terminal or a full memory may end it."""


@dataclass
class Kill:
    moment: Moment
    there: list[str] = field(default_factory=list)
    """What lay in the run at the moment of the kill, two levels deep."""
    processes: int = 0
    """Those that `pipe` had started and that its death left behind for a while."""
    wrong: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        moment = {**asdict(self.moment), "after": round(self.moment.after, 3)}
        result = "; ".join(self.wrong) or "same bytes"
        return {**moment, "there": self.there, "processes": self.processes, "result": result}


def moments(bench: Bench, kills: int, seed: int) -> Iterator[Moment]:
    """As PLAN has them, drawn by the seed from the times that the stages took."""
    draw = random.Random(seed)
    plan = [each for each in PLAN if each[0] in bench.stages]
    for number in range(kills):
        stage, kind = plan[number % len(plan)]
        seconds = bench.seconds[stage]
        path, longest = _aim(stage, kind, draw, bench)
        after = draw.uniform(0, seconds if path is None else longest)
        yield Moment(stage, path, after, group=draw.random() < 0.25)


def _aim(stage: Stage, kind: str, draw: random.Random, bench: Bench) -> tuple[str | None, float]:
    """The path to wait for, and the seconds within which to kill after it is there."""
    timing = json.loads((bench.whole(stage).folder(stage) / "timing.json").read_text("utf-8"))
    if kind == "checkpoint":
        return f".train.work/checkpoints/.step-{4 * draw.randint(1, 5):06d}.draft", 0.05
    if kind == "publishing":
        return draw.choice([(".train.work/result", 0.2), (".train.draft", 0.1)])
    if kind == "writing":
        return f".{stage}.draft", timing["seconds"]
    return None, 0.0


def killed(bench: Bench, moment: Moment, folder: Path) -> Kill | None:
    """Kill a command, look, run it and those after it, and compare; None where it had ended."""
    run = fresh(bench, moment.stage, folder)
    process = bench.start(moment.stage, folder)
    kill = Kill(moment)
    children = _wait_and_kill(process, run, moment)
    if process.wait() != -signal.SIGKILL:
        return None
    kill.there = there_now(run)
    kill.wrong += half_written(run)
    kill.processes = len(_living(children))
    stages: list[Stage] = bench.stages if moment.stage != "data" else ["data"]
    try:
        for stage in stages[stages.index(moment.stage) :]:
            bench.finish(stage, folder)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        kill.wrong.append(str(error))
    else:
        kill.wrong += differences(bench, stages[-1], run)
    kill.wrong += [f"process {child.pid} lives on" for child in _living(children)]
    return kill


def _wait_and_kill(
    process: "subprocess.Popen[bytes]", run: Run, moment: Moment
) -> list[psutil.Process]:
    """The processes that it had started."""
    while moment.path and process.poll() is None and not (run.root / moment.path).exists():
        time.sleep(0.001)
    deadline = time.monotonic() + moment.after
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    try:
        children: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    if process.poll() is None:
        (os.killpg if moment.group else os.kill)(process.pid, signal.SIGKILL)
    return children


def _living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that only waits to be reaped is dead."""
    found = []
    for process in processes:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            pass
    return found


def kill_all(bench: Bench, kills: int, seed: int) -> list[Kill]:
    """Every kill in turn; each hits, as one that comes too late is tried again earlier."""
    make_whole(bench)
    done = []
    for number, drawn in enumerate(moments(bench, kills, seed), 1):
        folder, moment = bench.folder / f"kill-{number}", drawn
        for attempt in range(TRIES):
            if kill := killed(bench, moment, folder):
                break
            moment = Moment(
                drawn.stage, drawn.path, drawn.after * 0.7 ** (attempt + 1), drawn.group
            )
        else:
            raise RuntimeError(f"{drawn} never came before the end")
        done.append(kill)
        print(f"{number:3d} {kill.as_json()}", flush=True)
        if not kill.wrong:
            shutil.rmtree(folder)
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Kill the demo at random moments.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--ollama", action="store_true", help="Register in a real server too.")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="kill-test-"))
    with opened(folder, options.ollama) as bench:
        kills = kill_all(bench, options.kills, options.seed)
    good = sum(not kill.wrong for kill in kills)
    figures = {
        "date": date.today().isoformat(),
        "processor": processor(),
        "seed": options.seed,
        "ollama": options.ollama,
        "seconds": {stage: round(value, 1) for stage, value in bench.seconds.items()},
        "same_bytes": f"{good} of {len(kills)}",
        "kills": [kill.as_json() for kill in kills],
    }
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(
        f"{good} of {len(kills)} end with the same bytes"
        + ("" if good == len(kills) else f": {folder}")
    )
    if good == len(kills):
        shutil.rmtree(folder)
    return 0 if good == len(kills) else 1


if __name__ == "__main__":
    sys.exit(main())
