"""What one call on a machine with a GPU runs, phase by phase; a step that fails stops no other.

python scripts/gpu/session.py --out FOLDER tests resume

In a checkout. A call of ten minutes holds `tests` and `resume`, another `speed` and `1b`, another
`3b` and `8b`. Bases with random weights and rows are made where they are needed, below the system's
folder for temporary files. Logs and figures go to FOLDER/logs.tgz, again every 20 s.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir
from time import perf_counter
from typing import NamedTuple

STARTED = perf_counter()
HERE = Path("scripts/gpu")
FOLDER = Path(gettempdir()) / "gpubench"
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


def tests(session: Session) -> bool:
    """tests/gpu: `pipe train` as typed, with every method; the base and rows beside it."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-m", "gpu", "tests/gpu"]
    # one after the other they would take all of a call
    command += ["-n", "4"] if find_spec("xdist") else []
    return session.run(
        Step("tests", 560, [*command, f"--basetemp={PYTEST}", "-p", "no:cacheprovider"])
    )


def resume(session: Session) -> None:
    """The same bytes after a resume with `deterministic`, and how far apart without; its price."""
    _bases(session)
    base, rows = FOLDER / "base-1b", FOLDER / "rows-2048"
    steps = []
    for batching in ("shuffled", "packed"):
        for more in ([], ["--deterministic"]):
            name = "-".join(["resume", batching, *(each.strip("-") for each in more)])
            command = [sys.executable, str(HERE / "resume.py"), "--base", str(base), *more]
            command += ["--rows", str(rows), "--batching", batching, "--device", session.device]
            steps.append(Step(name, 500, [*command, "--out", str(session.logs / f"{name}.json")]))
    session.together(steps)


def bench(shape: str, *more: str) -> Callable[["Session"], None]:
    """scripts/bench_train.py for a shape, all contenders warming up at once."""

    def phase(session: Session) -> None:
        command = [sys.executable, "scripts/bench_train.py", "--shape", shape, "--together"]
        command += ["--rounds", "1", "--steps", session.steps, "--profile", *more]
        command += ["--folder", str(FOLDER), "--device", session.device]
        out = ["--out", str(session.logs / f"bench-{shape}.json")]
        session.run(Step(f"bench-{shape}", 580, [*command, *out]))
        for log in (FOLDER / "out").rglob("*.log"):
            shutil.copyfile(log, session.logs / f"{log.parent.name}-{log.name}")

    return phase


def speed(session: Session) -> None:
    """The 1B alone on the card: padding, packing, kept activations, and determinism's price."""
    contenders = "pipe,pipe-padded,pipe-packed,pipe-open,pipe-deterministic"
    bench("1b", "--contenders", contenders)(session)


def generation(session: Session) -> None:
    """`pipe eval`'s engine on the 1B."""
    _bases(session, "--adapter", str(FOLDER / "adapter-1b"))
    questions = session.logs / "questions.jsonl"
    lines = [json.dumps({"question": f"How much is {n} + {n}?"}) for n in range(64)]
    questions.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, str(HERE / "generate.py"), "--base", str(FOLDER / "base-1b")]
    command += ["--adapter", str(FOLDER / "adapter-1b"), "--device", session.device]
    command += ["--questions", str(questions), "--out", str(session.logs / "eval.json")]
    session.run(Step("eval", 330, command))


def _bases(session: Session, *more: str) -> None:
    base = FOLDER / "base-1b"
    if not list(base.glob("*.safetensors")) or more:
        make = [sys.executable, str(HERE / "make_base.py"), str(base), "--shape", "1b", *more]
        session.run(Step("base-1b", 120, make))
    if not (FOLDER / "rows-2048").exists():
        sys.path.insert(0, str(HERE))
        from make_rows import write_rows

        write_rows(base, FOLDER / "rows-2048", 16 * (int(session.steps) + 2), 2048)


def _environment() -> dict[str, str]:
    """`pipe` starts its children with -P: they find the project by PYTHONPATH."""
    paths = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": paths}


def clock() -> str:
    """Seconds since the start."""
    return f"{perf_counter() - STARTED:.0f} s"


PHASES: dict[str, Callable[[Session], bool | None]] = {
    "tests": tests,
    "resume": resume,
    "speed": speed,
    "1b": bench("1b"),
    "3b": bench("3b"),
    "8b": bench("8b"),
    "eval": generation,
}


def options_of(phases: Sequence[str] = ()) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    if phases:
        parser.add_argument("phases", nargs="+", choices=phases)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--logs", type=Path, default=Path(gettempdir()) / "gpulogs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=16)
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
