"""A loopback hub in the place of the real one, for this process, and a folder to work in."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.publish.runs import write_recipe
from tests.support.upload_hub import UploadHub


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a pipe.yaml that extends the demo; no token anywhere."""
    from huggingface_hub import constants

    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("PIPE_RECIPE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    write_recipe(folder)
    return folder


@pytest.fixture(scope="session")
def client() -> Iterator[None]:
    """The hub's client without a proxy; made once, since it reads every certificate there is."""
    from huggingface_hub.utils import close_session

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        close_session()
        yield
    close_session()


@pytest.fixture
def hub(client: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    """Takes the token in HF_TOKEN."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    # the client waits seconds between its tries
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda _: None))
    # Xet, which the client would take first, is a protocol of its own
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with UploadHub().running() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server
