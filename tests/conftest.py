"""Fixtures that several rooms' tests share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pipeline.engines.ollama import OllamaServer
from tests.support.ollama import running_ollama

# where tests run in the background Ctrl-C is ignored, and their children would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

# a busy machine must not fail a property by its speed
settings.register_profile("quick", deadline=None, max_examples=30)
settings.register_profile("thorough", deadline=None, derandomize=True)
settings.load_profile("thorough" if os.environ.get("CI") else "quick")


@pytest.fixture(scope="session")
def ollama_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ollama")


@pytest.fixture(scope="session")
def ollama_server(ollama_home: Path) -> Iterator[OllamaServer]:
    """One real Ollama server for the whole session, started when a test first asks for it."""
    with running_ollama(ollama_home) as server:
        yield server
