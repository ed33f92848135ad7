"""The real Ollama server, on a port and in a folder of its own."""

import os
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.engines.ollama import OllamaServer
from pipeline.errors import OllamaUnreachable

_BUILT = Path(__file__).parents[2] / ".cache/ollama/bin/ollama"
_START_S = 60
_STOP_S = 10


def ollama_binary() -> Path:
    """The one that scripts/install_ollama.sh built, else the one on PATH. Fails without either."""
    if _BUILT.exists():
        return _BUILT
    found = shutil.which("ollama")
    assert found, "There is no Ollama. Build one: scripts/install_ollama.sh .cache/ollama"
    return Path(found)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running_ollama(home: Path) -> Iterator[OllamaServer]:
    """Starts `ollama serve` with its models and its log in `home`, and ends it by its process."""
    server = OllamaServer(f"127.0.0.1:{free_port()}")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "ollama.log").open("wb") as log:
        process = subprocess.Popen(
            [ollama_binary(), "serve"],
            env=environment(home, server),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        try:
            _wait_until_it_answers(server, process, home / "ollama.log")
            yield server
        finally:
            _end(process)


def environment(home: Path, server: OllamaServer) -> dict[str, str]:
    """For the server and for `ollama` as its client."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LD_LIBRARY_PATH": str(Path(sysconfig.get_path("platlib")) / "lib"),
        "OLLAMA_HOST": server.url,
        "OLLAMA_MODELS": str(home / "models"),
        "OLLAMA_NO_CLOUD": "1",
    }


def _wait_until_it_answers(
    server: OllamaServer, process: "subprocess.Popen[bytes]", log: Path
) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.version()
        except OllamaUnreachable:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(
        f"ollama serve did not come up:\n{log.read_text(errors='replace')[-3000:]}"
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
