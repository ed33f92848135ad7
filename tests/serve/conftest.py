"""A pretended Ollama that $OLLAMA_HOST names, and a run to register there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.run import Run
from tests.serve.runs import new_run
from tests.support.faulty_ollama import FaultyOllama, faulty_ollama


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyOllama]:
    with faulty_ollama() as ollama:
        monkeypatch.setenv("OLLAMA_HOST", ollama.url)
        yield ollama


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return new_run(tmp_path, "demo")
