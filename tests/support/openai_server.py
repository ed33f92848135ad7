"""A loopback server that speaks OpenAI's chat completions, until it is told to misbehave."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.loopback import running

Answer = Callable[["Handler"], None]


@dataclass
class OpenAiServer:
    """`script` answers request by request; the last of it answers all that follow."""

    url: str
    script: list[Answer] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    """Set when the test is over: what hangs ends."""
    open_now: int = 0
    """Requests that are being answered."""


def deltas(*parts: dict[str, Any], reason: str | None = "stop", tokens: int | None = 7) -> Answer:
    """A stream of these deltas, its finish_reason, its usage, its end."""
    events: list[dict[str, Any]] = [{"choices": [{"delta": part}]} for part in parts]
    if reason:
        events.append({"choices": [{"delta": {}, "finish_reason": reason}]})
    if tokens is not None:
        events.append({"choices": [], "usage": {"completion_tokens": tokens}})
    data = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    return sse(": a comment\n\n", *data, "data: [DONE]\n\n" if reason else "")


def sse(*chunks: str) -> Answer:
    def answer(handler: "Handler") -> None:
        handler.begin(200, "text/event-stream")
        for chunk in chunks:
            handler.wfile.write(chunk.encode())

    return answer


def refusal(status: int, body: dict[str, Any] | str = "", **headers: str) -> Answer:
    text = body if isinstance(body, str) else json.dumps(body)

    def answer(handler: "Handler") -> None:
        handler.begin(status, "application/json", **headers)
        handler.wfile.write(text.encode())

    return answer


def cut(handler: "Handler") -> None:
    """Breaks the connection unanswered."""


def endless(handler: "Handler") -> None:
    """One delta, then a comment now and then, until nobody listens or the test is over."""
    handler.begin(200, "text/event-stream")
    handler.wfile.write(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n')
    while not handler.server.openai.released.wait(0.02):
        try:
            handler.wfile.write(b": still here\n\n")
        except OSError:
            return


class Server(ThreadingHTTPServer):
    openai: OpenAiServer
    lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        server, openai = self.server, self.server.openai
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            openai.open_now += 1
            openai.bodies.append(body)
            openai.headers.append({key.lower(): value for key, value in self.headers.items()})
            answer = openai.script.pop(0) if len(openai.script) > 1 else openai.script[0]
        self.body = body
        answer(self)
        with server.lock:
            openai.open_now -= 1

    def log_message(self, *_: Any) -> None:
        """Tests stay quiet."""

    def begin(self, status: int, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


@contextmanager
def openai_server() -> Iterator[OpenAiServer]:
    server = Server(("127.0.0.1", 0), Handler)
    openai = server.openai = OpenAiServer(f"http://127.0.0.1:{server.server_address[1]}/v1")
    with running(server):
        try:
            yield openai
        finally:
            openai.released.set()
