"""One run of the demo for the whole session: real Unsloth, llama.cpp and Ollama."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from pipeline.engines.ollama import OllamaServer
from pipeline.run import Run
from tests.support.ollama import running_ollama

# no server answers here
NOBODY = "127.0.0.1:9"
PLANTED = {
    "HF_TOKEN": "hf_PLANTEDplantedPLANTEDplanted",
    "HUGGING_FACE_HUB_TOKEN": "hf_ANOTHERplantedANOTHERplanted",
    "WANDB_API_KEY": "0123456789abcdefPLANTED0123456789abcdef",
}
"""In the environment of every command here; what holds one of them has leaked it."""


@dataclass
class Demo:
    """A folder with a pipe.yaml, and `pipe` in it as a user types it."""

    folder: Path
    ollama: str = NOBODY
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def run(self) -> Run:
        return Run(self.folder / "runs" / "demo")

    def pipe(
        self, *arguments: str, code: int = 0, ollama: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command; its exit code and its silence on secrets are asserted, its time kept."""
        started = perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.folder,
            env={**os.environ, **PLANTED, "OLLAMA_HOST": ollama or self.ollama},
            capture_output=True,
            text=True,
            check=False,
        )
        self.seconds[arguments[0]] = perf_counter() - started
        assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert not leaked((done.stdout + done.stderr).encode()), arguments
        return done

    def json(self, relative: str) -> Any:
        return json.loads((self.run.root / relative).read_text())


def leaked(content: bytes) -> list[str]:
    """The names of the planted secrets that the bytes hold."""
    return [name for name, value in PLANTED.items() if value.encode() in content]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, ollama_server: OllamaServer) -> Iterator[Demo]:
    """`pipe prepare && pipe train && pipe export` with `extends: demo`, then eval."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "pipe.yaml").write_text("extends: demo\n")
    demo = Demo(folder, ollama_server.url)
    for model in ollama_server.tags():
        ollama_server.delete(model["name"])
    for command in ("prepare", "train", "export", "eval"):
        demo.pipe(command)
    yield demo


@pytest.fixture(scope="session")
def readers_ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server beside the demo's, which what the pages show may change."""
    with running_ollama(tmp_path_factory.mktemp("readers-ollama")) as server:
        yield server.url


@pytest.fixture
def short(tmp_path: Path) -> Demo:
    """The demo cut to a few steps and questions, with no server: for what need not be good."""
    (tmp_path / "pipe.yaml").write_text(
        "extends: demo\ntrain: {max_steps: 4}\neval: {limit: 3, max_new_tokens: 8}\n"
    )
    return Demo(tmp_path)
