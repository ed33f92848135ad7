"""The real Ollama server, on a port and in a folder of its own."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

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


@dataclass
class RealOllama:
    """`ollama serve` with its models and its log in `home`, to be killed and started again."""

    home: Path
    server: OllamaServer = field(default_factory=lambda: OllamaServer(f"127.0.0.1:{free_port()}"))
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        log = self.home / "ollama.log"
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [ollama_binary(), "serve"],
                env=environment(self.home, self.server),
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        _wait_until_it_answers(self.server, self.process, log)

    def stop(self) -> None:
        assert self.process is not None
        _end(self.process)

    def kill(self) -> None:
        """As the kernel does when memory runs out; with its runners, which would live on."""
        assert self.process is not None
        runners = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        for runner in runners:
            runner.kill()

    def freeze(self) -> None:
        """Connections are accepted by the kernel, and nothing answers them."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def limit_files(self, size: int) -> None:
        """Bytes that one file of the server may grow to; -1 for any number."""
        assert self.process is not None
        _, most = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, most))


@contextmanager
def running_ollama(home: Path) -> Iterator[OllamaServer]:
    """Starts a server of its own, and ends it by its process."""
    ollama = RealOllama(home)
    try:
        ollama.start()
        yield ollama.server
    finally:
        ollama.stop()


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
