"""The real Ollama killed, started again and out of room in the middle of a registration."""

import threading
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from zlib import crc32

import pytest

from pipeline.chat import chat_format
from pipeline.engines.ollama import OllamaServer, model_blob
from pipeline.engines.ollama_http import Patience
from pipeline.errors import OllamaRefused, OllamaUnreachable
from pipeline.run import Note, Run, silent
from pipeline.run.files import sha256_of
from pipeline.serve import RegisterOptions, make, register
from tests.support.exported import demo, exported_run
from tests.support.ollama import RealOllama
from tests.support.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.e2e

RECIPE = demo("export.quantize=[F16]", "eval.max_new_tokens=4", "serve.num_ctx=256")
TEMPLATE = chat_format("llama3.2-reasoning").jinja
LARGE = 16 << 20
PLAIN = RegisterOptions()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("restarted")


@pytest.fixture
def ollama(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealOllama]:
    """A server that the test may kill, with the model of another run in it."""
    ollama = RealOllama(home)
    monkeypatch.setenv("OLLAMA_HOST", ollama.server.url)
    try:
        ollama.start()
        yield ollama
    finally:
        ollama.kill()


@pytest.fixture
def old(ollama: RealOllama, tmp_path: Path) -> str:
    """Its digest."""
    run = new_run(tmp_path, "old", seed=0)
    (model,) = register(RECIPE, run, silent, RegisterOptions(force=True)).facts["models"]
    return str(model["digest"])


@pytest.fixture
def new(tmp_path: Path) -> Run:
    """No other test's file: they share a server's folder."""
    return new_run(tmp_path, "new", seed=crc32(tmp_path.name.encode()))


def new_run(folder: Path, name: str, seed: int) -> Run:
    """Its file ends in zeros that belong to no tensor, so that sending it takes a while."""
    path = write_tiny_gguf(folder / f"{name}.gguf", TEMPLATE, seed)
    with path.open("ab") as file:
        file.truncate(LARGE)
    return exported_run(folder / "runs" / name, RECIPE, {"F16": path})


def digest_of(run: Run) -> str:
    return f"sha256:{sha256_of(run.folder('export') / 'demo-F16.gguf')}"


def served(ollama: RealOllama) -> str:
    return model_blob(ollama.server.show("my-model"))[1]


def restart(ollama: RealOllama, away_s: float = 1.0) -> threading.Thread:
    """Kills it now; it comes back by itself, as systemd would have it."""
    ollama.kill()

    def start() -> None:
        sleep(away_s)
        ollama.start()

    thread = threading.Thread(target=start)
    thread.start()
    return thread


def test_killed_while_it_takes_the_file_and_started_again(ollama, old, new, monkeypatch):
    restarts = []
    monkeypatch.setattr(make, "_UPLOAD_EVENTS_S", 0)

    def kill(event):
        if not restarts and getattr(event, "unit", "") == "B":
            assert event.done < LARGE
            restarts.append(restart(ollama))

    (model,) = register(RECIPE, new, kill, PLAIN).facts["models"]
    restarts[0].join()
    assert model["blob"] == "uploaded"
    assert served(ollama) == digest_of(new) != old
    assert [each["name"] for each in ollama.server.tags()] == ["my-model:latest"]
    assert not ollama.server.has_blob(old)


def test_started_again_between_the_file_and_the_creation(ollama, old, new, monkeypatch):
    create, restarts = OllamaServer.create, []

    def late(*arguments):
        restarts.append(restart(ollama))
        create(*arguments)

    monkeypatch.setattr(OllamaServer, "create", late)
    (model,) = register(RECIPE, new, silent, PLAIN).facts["models"]
    restarts[0].join()
    assert model["asked"]["done_reason"] in {"stop", "length"}
    assert served(ollama) == digest_of(new) != old


@pytest.mark.parametrize("comes_back", [True, False])
def test_killed_while_it_creates(ollama, old, new, monkeypatch, comes_back):
    create, threads = OllamaServer.create, []

    def doomed(*arguments):
        ollama.freeze()  # so that it cannot be done before it dies
        threads.append(threading.Timer(0.5, restart if comes_back else RealOllama.kill, [ollama]))
        threads[0].start()
        create(*arguments)

    monkeypatch.setattr(OllamaServer, "create", doomed)
    says = "that was there before is as it was" if comes_back else "is kept: ollama cp my-model:be"
    hasty = OllamaServer(ollama.server.url, Patience(restart=5 if comes_back else 0.5))
    monkeypatch.setattr(OllamaServer, "from_environment", lambda: hasty)
    with pytest.raises(OllamaUnreachable, match=f"broke in /api/create.*{says}"):
        register(RECIPE, new, silent, PLAIN)
    threads[0].join()
    monkeypatch.setattr(OllamaServer, "create", create)
    if not comes_back:
        ollama.start()
    else:
        ollama.server.version()
    assert served(ollama) == old
    (model,) = register(RECIPE, new, silent, PLAIN).facts["models"]
    assert model["blob"] == "was there, hashed again"
    assert served(ollama) == digest_of(new)


def test_without_room_for_the_file(ollama, old, new):
    blobs = ollama.home / "models/blobs"
    before = set(blobs.iterdir())
    ollama.limit_files(LARGE // 4)
    with pytest.raises(OllamaRefused, match="file too large") as error:
        register(RECIPE, new, silent, PLAIN)
    assert "Make room" in error.value.hint
    assert served(ollama) == old
    assert set(blobs.iterdir()) == before, "nothing half-written"
    ollama.limit_files(-1)
    register(RECIPE, new, silent, PLAIN)
    assert served(ollama) == digest_of(new)


def test_a_new_model_that_cannot_answer_leaves_the_old_one(ollama, old, new, monkeypatch):
    def chat(*_, **__):
        raise OllamaRefused("llama-server died.")

    monkeypatch.setattr(OllamaServer, "chat", chat)
    notes = []
    with pytest.raises(OllamaRefused, match="that was there before is as it was"):
        register(RECIPE, new, notes.append, PLAIN)
    assert served(ollama) == old
    assert [each["name"] for each in ollama.server.tags()] == ["my-model:latest"]
    unused = [note.text for note in notes if isinstance(note, Note)]
    assert f"{digest_of(new)[:19]}... (16.8 MB)" in unused[0]
