"""The training race: the contenders warm up at once, then each has the card to itself.

python scripts/gpu/race.py --out FOLDER [--racers trl_1b,pipe_1b]

Run in a folder as scripts/gpu/session.py says, with base3b/config.json for the 3B. The last turn
is `pipe eval`'s engine (scripts/gpu/generate.py).
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import gettempdir
from time import perf_counter, sleep
from typing import NamedTuple

from session import HERE, Session, Step, bases, clock, options_of

GATES = Path(gettempdir()) / "gpugates"
WARM_UP_LIMIT = 150
"""Seconds for all contenders; who is not ready then is timed while others still warm up."""


class Racer(NamedTuple):
    name: str
    kind: str
    """What scripts/gpu/contender.py knows it by."""
    base: str
    batch: int
    accumulation: int
    steps: int
    """Timed ones."""
    profile: bool = True


RACERS = (
    Racer("trl_1b", "trl", "base1b", 4, 4, 9, profile=False),
    Racer("pipe_1b", "pipe", "base1b", 4, 4, 14),
    Racer("free_1b", "free", "base1b", 4, 4, 14),
    Racer("pipe16_1b", "pipe", "base1b", 16, 1, 14),
    Racer("free16_1b", "free", "base1b", 16, 1, 14),
    Racer("trl_3b", "trl", "base3b", 2, 8, 5, profile=False),
    Racer("pipe_3b", "pipe", "base3b", 2, 8, 8),
    Racer("free_3b", "free", "base3b", 2, 8, 8),
)
"""The rows of a step are the recipes' own; 16 at once is what a large card can hold."""


def race(session: Session, racers: list[Racer], repeats: bool) -> None:
    """Each racer's figures in FOLDER; `repeats` adds two equal runs asked to be deterministic."""
    steps = [*(step_of(session, racer) for racer in racers), generation(session)]
    aside = deterministic(session) if repeats else []
    GATES.mkdir(exist_ok=True)
    with ThreadPoolExecutor(len(steps) + len(aside)) as pool, _watched_card(session.logs):
        if any(racer.base == "base3b" for racer in racers):
            make = [sys.executable, str(HERE / "make_base.py"), "base3b"]
            step = Step("base3b", 120, [*make, "--tokenizer", "base1b/tokenizer.json"])
            larger = pool.submit(session.run, step)
            bases(session)
            larger.result()
        else:
            bases(session)
        others = [pool.submit(session.run, step) for step in aside]
        running = {step.name: pool.submit(session.run, step) for step in steps}
        over = perf_counter() + WARM_UP_LIMIT
        while perf_counter() < over:
            sleep(0.2)
            here = all(_gate(n, ".ready").exists() or done.done() for n, done in running.items())
            if here and all(done.done() for done in others):
                break
        print(f"[{clock()}] warmed up", flush=True)
        for name, done in running.items():
            _gate(name).touch()
            done.result()
            session.keep()


def step_of(session: Session, racer: Racer) -> Step:
    # five steps to warm up, and the profiled one
    steps = 5 + racer.steps + racer.profile
    batch, accumulation = racer.batch, racer.accumulation
    more = ["--profile"] if racer.profile else []
    if session.device == "cpu":  # a rehearsal
        batch, accumulation, steps, more = 2, 1, 7, [*more, "--precision", "fp32"]
    command = [sys.executable, str(HERE / "contender.py"), racer.kind, "--base", racer.base]
    command += ["--rows", "runs/s2048/data/encoded", "--device", session.device]
    command += ["--out", str(session.logs / f"{racer.name}.json"), "--steps", str(steps)]
    command += ["--batch", str(batch), "--accumulation", str(accumulation)]
    return Step(racer.name, 330, [*command, "--gate", str(_gate(racer.name)), *more])


def generation(session: Session) -> Step:
    """`pipe eval`'s engine, in its turn of the race."""
    command = [sys.executable, str(HERE / "generate.py"), "--base", "base1b"]
    command += ["--adapter", "adapter1b", "--device", session.device]
    command += ["--questions", "runs/s2048/data/test.jsonl", "--gate", str(_gate("eval"))]
    return Step("eval", 330, [*command, "--out", str(session.logs / "eval.json")])


def deterministic(session: Session) -> list[Step]:
    """Beside the warm-up: two equal runs under torch.use_deterministic_algorithms."""
    command = [sys.executable, str(HERE / "contender.py"), "pipe", "--base", "base1b"]
    command += ["--rows", "runs/s2048/data/encoded", "--steps", "7", "--deterministic"]
    command += ["--device", session.device, "--out"]
    names = ("deterministic1", "deterministic2")
    return [Step(name, 170, [*command, str(session.logs / f"{name}.json")]) for name in names]


def _gate(name: str, ending: str = "") -> Path:
    return GATES / f"{name}{ending}"


@contextlib.contextmanager
def _watched_card(logs: Path) -> Iterator[None]:
    """nvidia-smi's own record, a line a second."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield
        return
    log = logs / "dmon.log"
    with log.open("wb") as file, subprocess.Popen([tool, "dmon", "-s", "um"], stdout=file) as watch:
        yield
        watch.terminate()


def main() -> None:
    parser = options_of()
    parser.description = __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--racers", default=",".join(racer.name for racer in RACERS))
    parser.add_argument("--deterministic", action="store_true", help="two equal runs beside it")
    options = parser.parse_args()
    shutil.rmtree(GATES, ignore_errors=True)
    session = Session(options)
    chosen = options.racers.split(",")
    with session.kept():
        race(session, [racer for racer in RACERS if racer.name in chosen], options.deterministic)
    print(f"[{clock()}] over")


if __name__ == "__main__":
    main()
