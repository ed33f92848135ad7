"""A loopback server that behaves like Ollama, until it is told to misbehave."""

import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.loopback import Answering, running

Answer = Callable[["Handler"], None]


@dataclass
class FaultyOllama:
    """State of the pretended server; `faults` maps `METHOD /path` to what happens instead.

    A path ends at its third slash: `POST /api/blobs`. From 0.30 to 0.33 a GGUF is rewritten.
    """

    url: str
    version: str = "0.34.1"
    faults: dict[str, Answer] = field(default_factory=dict)
    blobs: dict[str, int] = field(default_factory=dict)
    """Digest -> bytes received."""
    folder: Path | None = None
    """Where blobs lie as files, if they do."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> the request that made it."""
    weights: dict[str, str] = field(default_factory=dict)
    """Name -> digest, where it is not the request's."""
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Every `METHOD /path` with its headers."""
    released: threading.Event = field(default_factory=threading.Event)

    def calls(self, call: str) -> int:
        return sum(seen == call for seen, _ in self.seen)

    def shown(self, name: str) -> dict[str, Any]:
        request = self.models[name]
        rows = []
        for key, value in request.get("parameters", {}).items():
            values = value if isinstance(value, list) else [value]
            rows += [f"{key:<30} {json.dumps(one)}" for one in values]
        return {
            "modelfile": f"# made by ollama show\nFROM {self.path(self.digest_of(name))}\n",
            "template": request.get("template", ""),
            "parameters": "\n".join(rows),
            "license": request.get("license", ""),
            "capabilities": ["completion", "thinking"],
        }

    def path(self, digest: str) -> Path:
        return (self.folder or Path("/blobs")) / digest.replace(":", "-")

    def digest_of(self, name: str) -> str:
        (given,) = self.models[name]["files"].values()
        return self.weights.get(name, str(given))

    def rewrites(self) -> bool:
        """Read in Ollama's source: llama-quantize copies a GGUF at create in this range."""
        numbers = re.findall(r"\d+", self.version)
        return [0, 30] <= [int(number) for number in numbers[:2]] < [0, 34]

    def keep(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = len(content)
        if self.folder:
            self.folder.mkdir(exist_ok=True)
            self.path(digest).write_bytes(content)
        return digest

    def make(self, request: dict[str, Any]) -> list[dict[str, str]]:
        """The status lines; an older model of that name goes, with its blob if nobody uses it."""
        name = request["model"]
        (digest,) = request["files"].values()
        if digest not in self.blobs:
            missing = f"open {self.path(digest)}: no such file or directory"
            return [{"status": "parsing GGUF"}, {"error": missing}]
        steps = ["parsing GGUF", f"using existing layer {digest}"]
        weights = digest
        if self.rewrites():
            source = self.path(digest).read_bytes() if self.folder else digest.encode()
            weights = self.keep(source + bytes(32))
            steps[1:] = ["validating GGUF model", "verifying conversion"]
        self.remove(name, spared=weights)
        self.models[name], self.weights[name] = request, weights
        return [{"status": step} for step in (*steps, "writing manifest", "success")]

    def remove(self, name: str, spared: str = "") -> None:
        if name in self.models:
            digest = self.digest_of(name)
            del self.models[name]
            self.weights.pop(name, None)
            if digest not in {spared, *map(self.digest_of, self.models)}:
                self.blobs.pop(digest, None)
                self.path(digest).unlink(missing_ok=True)


def reply(status: int, body: dict[str, Any] | str) -> Answer:
    """Reads what was sent, and answers so."""
    text = body if isinstance(body, str) else json.dumps(body)

    def answer(handler: "Handler") -> None:
        assert handler.content is not None
        handler.answer(status, text.encode())

    return answer


def lines(*events: dict[str, Any]) -> Answer:
    """A stream with HTTP 200 that ends after these lines."""
    text = "".join(json.dumps(event) + "\n" for event in events)
    return reply(200, text)


def hang(handler: "Handler") -> None:
    """Says nothing until the test is over."""
    handler.server.ollama.released.wait(30)


def dribble(handler: "Handler") -> None:
    """One byte at a time, and never the last."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while not handler.server.ollama.released.wait(0.05):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return


def stall(handler: "Handler") -> None:
    """Begins a stream, then says nothing until the test is over."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b'{"status": "parsing GGUF"}\n')
    handler.server.ollama.released.wait(30)


def early(status: int, body: dict[str, Any]) -> Answer:
    """Answers after the first bytes of an upload, as Go does when its handler returns."""

    def answer(handler: "Handler") -> None:
        handler.rfile.read1(1000)
        handler.answer(status, json.dumps(body).encode())
        handler.connection.shutdown(socket.SHUT_WR)
        handler.server.ollama.released.wait(0.3)

    return answer


def cut(times: int) -> Answer:
    """Breaks the connection so often, then behaves."""
    left = iter(range(times))

    def answer(handler: "Handler") -> None:
        if next(left, None) is None:
            handler.behave()

    return answer


class Server(ThreadingHTTPServer):
    ollama: FaultyOllama

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is what many tests want."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Handler(Answering):
    server: Server

    def answer(self, status: int, body: bytes = b"{}") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def behave(self) -> None:
        ollama = self.server.ollama
        match self.call:
            case "GET /api/version":
                self.answer(200, json.dumps({"version": ollama.version}).encode())
            case "GET /api/tags":
                models = [{"name": n if ":" in n else f"{n}:latest"} for n in ollama.models]
                self.answer(200, json.dumps({"models": models}).encode())
            case "HEAD /api/blobs":
                self.answer(200 if self.path.rpartition("/")[2] in ollama.blobs else 404)
            case "POST /api/blobs":
                self._keep_blob()
            case "POST /api/create":
                lines(*ollama.make(self.values))(self)
            case "POST /api/chat":
                message = {"thinking": "2 + 3", "content": "5"}
                lines({"message": message}, {"done": True, "done_reason": "stop"})(self)
            case "POST /api/generate":
                self.answer(200, b'{"done_reason": "unload"}')
            case "POST /api/show" | "POST /api/copy" | "DELETE /api/delete":
                self._about(self.values)
            case _:
                self.answer(404, b'{"error": "404 page not found"}')

    def _about(self, values: dict[str, Any]) -> None:
        """What is done to a model that must be there."""
        ollama = self.server.ollama
        name = str(values.get("model") or values["source"]).removesuffix(":latest")
        if name not in ollama.models:
            return self.answer(404, b'{"error": "not found"}')
        if self.call == "POST /api/show":
            return self.answer(200, json.dumps(ollama.shown(name)).encode())
        if self.call == "POST /api/copy":
            target = values["destination"]
            ollama.weights[target] = ollama.digest_of(name)
            ollama.models[target] = ollama.models[name]
        else:
            ollama.remove(name)
        return self.answer(200)

    def _answer(self) -> None:
        ollama = self.server.ollama
        self.call = f"{self.command} {'/'.join(self.path.split('/')[:3])}"
        self.__dict__.pop("content", None)
        ollama.seen.append((self.call, dict(self.headers)))
        self.close_connection = True  # also after `cut`, which answers nothing
        ollama.faults.get(self.call, Handler.behave)(self)

    @cached_property
    def content(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    @property
    def values(self) -> dict[str, Any]:
        return dict(json.loads(self.content))

    def _keep_blob(self) -> None:
        if self.path.rpartition(":")[2] != hashlib.sha256(self.content).hexdigest():
            self.answer(400, b'{"error": "digest mismatch"}')
            return
        self.server.ollama.keep(self.content)
        self.answer(201)


@contextmanager
def faulty_ollama(port: int = 0) -> Iterator[FaultyOllama]:
    server = Server(("127.0.0.1", port), Handler)
    ollama = server.ollama = FaultyOllama(f"http://127.0.0.1:{server.server_address[1]}")
    with running(server):
        try:
            yield ollama
        finally:
            ollama.released.set()
