"""A tiny GGUF and a partner that opened it; an endpoint that can misbehave."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.chat import Encoder
from pipeline.engines.endpoint import EndpointEngine
from pipeline.engines.talk_file import FilePartner, RunPrompter
from tests.engines.talks import FORMAT, GREEDY
from tests.support.openai_server import openai_server
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tokenizer import write_base


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_base(folder)
    return write_tiny_gguf(folder / "tiny.gguf", FORMAT.jinja)


@pytest.fixture(scope="module")
def partner(tiny: Path) -> Iterator[FilePartner]:
    encoder = Encoder(tiny.parent / "tokenizer.json", FORMAT)
    partner = FilePartner(tiny, RunPrompter(encoder), n_ctx=96, sampling=GREEDY, threads=1)
    yield partner
    partner.close()


@pytest.fixture
def server():
    with openai_server() as server:
        yield server


@pytest.fixture
def opened(server, monkeypatch):
    """Opens engines that lose no time between tries."""
    monkeypatch.setattr("pipeline.engines.endpoint._FIRST_PAUSE_S", 0.001)
    engines = []

    def open_(url=server.url, **settings):
        engines.append(EndpointEngine(url, "m", FORMAT, **settings))
        return engines[-1]

    yield open_
    for engine in engines:
        engine.close()
