"""For kill_test.py: the run in one go, copies of it to kill in, and what became of them."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.engines.ollama import OllamaServer
from pipeline.errors import PipeError
from pipeline.run import Run, Stage, describe_tree
from pipeline.run.manifest import NAME, UNHASHED
from pipeline.train import checkpoint
from tests.support.ollama import running_ollama

MODEL = "kill-test"
RECIPE = {
    "extends": "demo",
    "train": {
        "max_steps": 20,
        "batch_size": 4,
        "save_every": 4,
        "eval_every": 5,
        "neftune_noise_alpha": 5,
        "lora": {"dropout": 0.1},
    },
    "serve": {"name": MODEL},
}
COMMANDS: dict[Stage, tuple[str, ...]] = {
    "data": ("prepare",),
    "train": ("train",),
    "export": ("export", "--no-register"),
    "serve": ("register",),
}
NOBODY = "127.0.0.1:9"
"""No server answers here."""
PATIENCE_S = 600


@dataclass
class Bench:
    """A folder with pipe.yaml; `whole/` holds the run after each stage in one go."""

    folder: Path
    server: OllamaServer | None
    seconds: dict[Stage, float] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    """Digest by name."""
    reply: str = ""

    @property
    def stages(self) -> list[Stage]:
        return [stage for stage in COMMANDS if stage != "serve" or self.server]

    def whole(self, stage: Stage) -> Run:
        return Run(self.folder / "whole" / stage / "demo")

    def start(self, stage: Stage, folder: Path) -> "subprocess.Popen[bytes]":
        host = self.server.url if self.server else NOBODY
        with (folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "pipeline",
                    *COMMANDS[stage],
                    "-r",
                    self.folder / "pipe.yaml",
                ],
                cwd=folder,
                env={**os.environ, "OLLAMA_HOST": host},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, stage: Stage, folder: Path) -> None:
        """Raises RuntimeError, with its last words, where the command fails."""
        code = self.start(stage, folder).wait(PATIENCE_S)
        if code:
            said = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{stage} ended with {code}: {said[-600:]}")


def make_whole(bench: Bench) -> None:
    """All stages in one go, the run kept as it is after each."""
    (bench.folder / "pipe.yaml").write_text(json.dumps(RECIPE), encoding="utf-8")
    folder = bench.folder / "first"
    folder.mkdir()
    for stage in bench.stages:
        started = time.monotonic()
        bench.finish(stage, folder)
        bench.seconds[stage] = time.monotonic() - started
        shutil.copytree(folder / "runs" / "demo", bench.whole(stage).root)
    if bench.server:
        bench.models, bench.reply = served(bench.server)


def fresh(bench: Bench, stage: Stage, folder: Path) -> Run:
    """A run with all stages before this one done, and a server without its models."""
    shutil.rmtree(folder, ignore_errors=True)
    run = Run(folder / "runs" / "demo")
    run.root.mkdir(parents=True)
    before = bench.stages[: bench.stages.index(stage)]
    if before:
        shutil.copytree(bench.whole(before[-1]).root, run.root, dirs_exist_ok=True)
    if bench.server:
        for model in bench.server.tags():
            if model["name"].startswith(MODEL):
                bench.server.delete(model["name"])
    return run


def there_now(run: Run) -> list[str]:
    paths = [
        *run.root.glob("*"),
        *run.root.glob(".*.work/*"),
        *run.root.glob(".*.work/checkpoints/*"),
    ]
    return sorted(path.relative_to(run.root).as_posix() for path in paths if path.name != ".lock")


def half_written(run: Run) -> list[str]:
    """What bears the name of something whole and is not."""
    wrong = []
    for stage in COMMANDS:
        if run.folder(stage).exists():
            try:
                run.require(stage)
            except PipeError as error:
                wrong.append(f"after the kill: {error.message}")
    for folder in run.root.glob(".train.work/checkpoints/step-*"):
        try:
            checkpoint.opened(folder)
        except ValueError as error:
            wrong.append(f"after the kill: {folder.name}: {error}")
    return wrong


def differences(bench: Bench, stage: Stage, run: Run) -> list[str]:
    """Files that are others than in one go, gone or too many; and models."""
    expected, found = (hashes(each) for each in (bench.whole(stage), run))
    wrong = [
        f"{name} {'differs' if name in expected and name in found else 'is there or not'}"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]
    if stage == "serve" and bench.server:
        models, reply = served(bench.server)
        wrong += [] if models == bench.models else [f"models {models}, not {bench.models}"]
        wrong += [] if reply == bench.reply else [f"it answers {reply!r}, not {bench.reply!r}"]
    return wrong


def hashes(run: Run) -> dict[str, str]:
    """Every file of the run but those that hold times or a process's number."""
    omitted = {*UNHASHED, ".lock"} - {NAME}
    files = {name: each.sha256 for name, each in describe_tree(run.root, skip=()).items()}
    if "serve/manifest.json" in files:
        files["serve/manifest.json"] = _registered(run)
    folders = {path.relative_to(run.root).as_posix(): "" for path in run.root.glob(".*/")}
    return folders | {n: sha for n, sha in files.items() if n.rsplit("/", 1)[-1] not in omitted}


def _registered(run: Run) -> str:
    """Without how each file came to the server, which a killed upload may have brought there."""
    values = json.loads((run.folder("serve") / NAME).read_text(encoding="utf-8"))
    for model in values["facts"]["models"]:
        del model["blob"]
    return json.dumps(values, sort_keys=True)


def served(server: OllamaServer) -> tuple[dict[str, str], str]:
    """Our models' digests by name, and what the first answers."""
    tags = server.tags()
    models = {each["name"]: each["digest"] for each in tags if each["name"].startswith(MODEL)}
    messages = [{"role": "user", "content": "What is 2 + 3?"}]
    options = {"temperature": 0, "seed": 1, "num_predict": 24}
    reply = server.chat(MODEL, messages, options=options)
    return models, f"{reply.thinking}|{reply.content}"


@contextmanager
def opened(folder: Path, with_ollama: bool) -> Iterator[Bench]:
    """A bench in `folder`, with a server of its own."""
    with running_ollama(folder / "ollama") if with_ollama else nullcontext() as server:
        yield Bench(folder, server)
