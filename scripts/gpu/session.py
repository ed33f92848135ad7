"""What one call on a machine with a GPU runs, phase by phase; a step that fails stops no other.

python scripts/gpu/session.py --out FOLDER bases gate correct race

Run in a folder that holds the project, base1b/ and base3b/ (config.json and tokenizer) and the
prepared runs runs/s2048 and runs/s4096. Logs and figures go to FOLDER/logs.tgz, again every 20 s.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import gettempdir
from time import perf_counter
from typing import NamedTuple

STARTED = perf_counter()
HERE = Path("scripts/gpu")
PYTEST = Path(gettempdir()) / "gpupytest"
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
    "OLLAMA_HOST": "127.0.0.1:9",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # a dozen processes compile at once
    "TORCHINDUCTOR_COMPILE_THREADS": "4",
    "UNSLOTH_AUTO_INSTALL": "0",
    "UNSLOTH_DISABLE_STATISTICS": "1",
}


class Step(NamedTuple):
    name: str
    limit: float
    """Seconds after which it is killed."""
    command: list[str]


class Session:
    """Runs steps and keeps what they say."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device: str = options.device
        self.steps = str(options.steps)
        self._keeping = threading.Lock()
        self.logs: Path = options.logs
        self.out: Path = options.out
        self.logs.mkdir(parents=True, exist_ok=True)
        self.out.mkdir(parents=True, exist_ok=True)

    def run(self, step: Step) -> bool:
        """The step's log in a file; its end, its figures and a failure's last lines told."""
        started = perf_counter()
        log = self.logs / f"{step.name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                step.command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
            )
            try:
                code: int | str = process.wait(step.limit)
            except subprocess.TimeoutExpired:
                code = "timeout"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        shown = [line[:700] for line in lines if line.startswith("RESULT")]
        shown += [line[:300] for line in lines[-15:]] if code else []
        took = perf_counter() - started
        print("\n".join([f"[{clock()}] {step.name}: {code}, {took:.0f} s", *shown]), flush=True)
        return code == 0

    def together(self, steps: list[Step]) -> None:
        with ThreadPoolExecutor(len(steps)) as pool:
            list(pool.map(self.run, steps))

    def keep(self) -> None:
        """The logs so far into one archive; model files stay behind, the demo's adapter aside."""
        draft = self.out / ".logs"
        with self._keeping:
            with tarfile.open(draft, "w:gz") as archive:
                for path in sorted(self.logs.rglob("*")):
                    if path.is_file() and path.stat().st_size < 4_000_000:
                        archive.add(path, path.relative_to(self.logs))
            draft.replace(self.out / "logs.tgz")

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        over = threading.Event()

        def often() -> None:
            while not over.wait(20):
                self.keep()

        thread = threading.Thread(target=often)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.keep()


def train(session: Session, name: str, length: int, *settings: str, limit: float = 200) -> Step:
    """`pipe train` on a copy of the prepared run of that length."""
    shutil.copytree(f"runs/s{length}", f"runs/{name}")
    given = [
        f"model.max_seq_length={length}",
        f"train.max_steps={session.steps}",
        "train.warmup_steps=3",
        *settings,
    ]
    if session.device == "cpu":
        given += ["train.device=cpu", "train.precision=fp32", "train.optimizer=adamw_torch"]
        given += ["train.batch_size=1", "train.gradient_accumulation=1"]
    flags = [part for each in given for part in ("--set", each)]
    return Step(name, limit, [sys.executable, "-m", "pipeline", "train", "--run", name, *flags])


def bases(session: Session) -> None:
    """The random weights of the 1B, and an adapter for it."""
    make = [sys.executable, str(HERE / "make_base.py")]
    session.run(Step("base1b", 120, [*make, "base1b", "--adapter", "adapter1b"]))


def gate(session: Session) -> bool:
    """The first `pipe train`: where it fails nothing else is worth its time."""
    good = session.run(train(session, "q1", 2048))
    _keep_train(session, "q1")
    return good


def correct(session: Session) -> None:
    """16-bit, fp16, the recipe's own length, the same again, and tests/gpu: all at once."""
    tests = [sys.executable, "-m", "pytest", "-q", "--no-header", "-m", "gpu", "tests/gpu"]
    session.together(
        [
            train(session, "q2", 2048),
            train(session, "recipe4096", 4096),
            train(session, "lora16", 2048, "train.method=lora"),
            train(session, "fp16", 2048, "train.precision=fp16"),
            Step("tests", 400, [*tests, f"--basetemp={PYTEST}", "-p", "no:cacheprovider"]),
        ]
    )
    for name in ("q2", "recipe4096", "lora16", "fp16"):
        _keep_train(session, name)
    for adapter in PYTEST.glob("demo*/runs/four-bit/train/adapter"):
        shutil.copytree(adapter, session.logs / "demo_adapter", dirs_exist_ok=True)
        break
    compare = [sys.executable, str(HERE / "compare_runs.py"), "runs/q1", "runs/q2"]
    session.run(Step("same", 20, compare))


def _keep_train(session: Session, name: str) -> None:
    for path in Path(f"runs/{name}/train").glob("*.*"):
        (session.logs / name).mkdir(exist_ok=True)
        shutil.copy(path, session.logs / name)


def _environment() -> dict[str, str]:
    """`pipe` starts its children with -P: they find the project by PYTHONPATH."""
    paths = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": paths}


def clock() -> str:
    """Seconds since the start."""
    return f"{perf_counter() - STARTED:.0f} s"


PHASES: dict[str, Callable[[Session], bool | None]] = {
    "bases": bases,
    "gate": gate,
    "correct": correct,
}


def options_of(phases: Sequence[str] = ()) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    if phases:
        parser.add_argument("phases", nargs="+", choices=phases)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--logs", type=Path, default=Path(gettempdir()) / "gpulogs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=12)
    return parser


def main() -> None:
    options = options_of(list(PHASES)).parse_args()
    session = Session(options)
    with session.kept():
        for phase in options.phases:
            if PHASES[phase](session) is False:
                break
    print(f"[{clock()}] over")


if __name__ == "__main__":
    main()
