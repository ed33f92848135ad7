"""A loopback server that behaves like Ollama, until it is told to misbehave."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]


@dataclass
class FaultyOllama:
    """State of the pretended server; `faults` maps `METHOD /path` to what happens instead.

    A path ends at its third slash: `POST /api/blobs`.
    """

    url: str
    version: str = "0.34.1"
    faults: dict[str, Answer] = field(default_factory=dict)
    blobs: dict[str, int] = field(default_factory=dict)
    """Digest -> bytes received."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> the request that made it."""
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Every `METHOD /path` with its headers."""
    released: threading.Event = field(default_factory=threading.Event)

    def calls(self, call: str) -> int:
        return sum(seen == call for seen, _ in self.seen)

    def shown(self, name: str) -> dict[str, Any]:
        request = self.models[name]
        (digest,) = request["files"].values()
        rows = []
        for key, value in request.get("parameters", {}).items():
            values = value if isinstance(value, list) else [value]
            rows += [f"{key:<30} {json.dumps(one)}" for one in values]
        return {
            "modelfile": f"# made by ollama show\nFROM /blobs/{digest.replace(':', '-')}\n",
            "template": request.get("template", ""),
            "parameters": "\n".join(rows),
            "license": request.get("license", ""),
            "capabilities": ["completion", "thinking"],
        }


def reply(status: int, body: dict[str, Any] | str) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)
    return lambda handler: handler.answer(status, text.encode())


def lines(*events: dict[str, Any]) -> Answer:
    """A stream with HTTP 200 that ends after these lines."""
    text = "".join(json.dumps(event) + "\n" for event in events)
    return lambda handler: handler.answer(200, text.encode())


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


def cut(times: int) -> Answer:
    """Breaks the connection so often, then behaves."""
    left = iter(range(times))

    def answer(handler: "Handler") -> None:
        if next(left, None) is None:
            handler.behave()

    return answer


class Server(ThreadingHTTPServer):
    daemon_threads = True
    ollama: FaultyOllama


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815 (http.server's names)

    def log_message(self, *_: Any) -> None:
        """Tests stay quiet."""

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
            case "HEAD /api/blobs":
                self.answer(200 if self.path.rpartition("/")[2] in ollama.blobs else 404)
            case "POST /api/blobs":
                self._keep_blob()
            case "POST /api/show":
                known = self.values.get("model") in ollama.models
                shown = ollama.shown(self.values["model"]) if known else {"error": "not found"}
                self.answer(200 if known else 404, json.dumps(shown).encode())
            case "POST /api/create":
                ollama.models[self.values["model"]] = self.values
                lines({"status": "parsing GGUF"}, {"status": "success"})(self)
            case "POST /api/chat":
                message = {"thinking": "2 + 3", "content": "5"}
                lines({"message": message}, {"done": True, "done_reason": "stop"})(self)
            case "POST /api/generate":
                self.answer(200, b'{"done_reason": "unload"}')
            case _:
                self.answer(404, b'{"error": "404 page not found"}')

    def _serve(self) -> None:
        ollama = self.server.ollama
        self.call = f"{self.command} {'/'.join(self.path.split('/')[:3])}"
        self.content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        ollama.seen.append((self.call, dict(self.headers)))
        self.close_connection = True  # also after `cut`, which answers nothing
        ollama.faults.get(self.call, Handler.behave)(self)

    @property
    def values(self) -> dict[str, Any]:
        return dict(json.loads(self.content))

    def _keep_blob(self) -> None:
        digest = f"sha256:{hashlib.sha256(self.content).hexdigest()}"
        if digest != self.path.rpartition("/")[2]:
            self.answer(400, b'{"error": "digest mismatch"}')
            return
        self.server.ollama.blobs[digest] = len(self.content)
        self.answer(201)


@contextmanager
def faulty_ollama() -> Iterator[FaultyOllama]:
    server = Server(("127.0.0.1", 0), Handler)
    ollama = server.ollama = FaultyOllama(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield ollama
    finally:
        ollama.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
