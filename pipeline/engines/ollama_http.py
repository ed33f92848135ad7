"""HTTP to an Ollama server: where it is, how long to wait, and errors in its own words."""

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from pipeline.engines.streams import BROKEN, bounded, is_loopback, lines
from pipeline.errors import OllamaRefused, OllamaUnreachable, PipeError

Json = dict[str, Any]
Result = TypeVar("Result")

START = "Start it: ollama serve. Install it: https://ollama.com/download. Elsewhere: OLLAMA_HOST"
_LOOK = "Its log may say more: journalctl -u ollama, or where `ollama serve` runs."
_ROOM = (
    "Make room where it keeps its models (OLLAMA_MODELS, else ~/.ollama/models; Ollama 0.30 to "
    "0.33 needs three times the file), then run the same command again."
)
_FULL = re.compile(r"no space left on device|disk quota exceeded|file too large")
_BLOCK = 1 << 20
_RECONNECT_S = 0.25
_HOST_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds, and how often to try a call that may be repeated.

    A server that hangs is given up after `quick` in a look-up, after `slow` in an upload, a create
    or a chat. One that is only slow takes at most `slow` + bytes / `rate` for an upload, and
    `total` + `slow` for a create or a chat, `total` more for one that waits for others.
    """

    connect: float = 5.0
    quick: float = 60.0
    """For the next byte, and in all, of a call that only looks something up."""
    slow: float = 600.0
    """For the next byte of create and chat: loading a large model from disk is silent.

    Each request that goes out beside others waits so long for each of them, before its first byte.
    """
    total: float = 7200.0
    """In all, of one create or chat."""
    rate: float = 250_000.0
    """Bytes per second that an upload makes at least, after `slow` seconds of grace."""
    restart: float = 15.0
    """For a server that has answered and refuses now: systemd starts it again after 3 s."""
    attempts: int = 3


@dataclass(frozen=True)
class Connection:
    """Calls to one server, each with its time bounded; a loopback server is asked directly."""

    host: str
    patience: Patience = field(default_factory=Patience)

    @cached_property
    def url(self) -> str:
        return server_url(self.host)

    @cached_property
    def is_loopback(self) -> bool:
        return is_loopback(urlsplit(self.url).hostname or "")

    def ask(self, method: str, path: str, body: Json | None = None, seconds: float = 0) -> Json:
        """The reply to a call that may be repeated."""
        return self.accepted(path, *self.reply(method, path, body, seconds))

    def reply(
        self, method: str, path: str, body: Json | None = None, seconds: float = 0
    ) -> tuple[int, bytes]:
        """Status and body of a call that may be repeated."""
        return self.repeat(lambda: self.once(method, path, body, seconds))

    def once(
        self, method: str, path: str, body: Json | None = None, seconds: float = 0
    ) -> tuple[int, bytes]:
        """Status and body of one call; `seconds` 0 is patience.quick."""
        seconds = seconds or self.patience.quick
        with self._open(method, path, seconds, json=body) as response:
            return response.status_code, b"".join(bounded(response, seconds))

    def repeat(self, call: Callable[[], Result]) -> Result:
        """The call's result; a connection that breaks is tried again, a silent one is not."""
        for attempt in range(1, self.patience.attempts):
            try:
                return call()
            except OllamaUnreachable as error:
                if not isinstance(error.__cause__, BROKEN):
                    raise
                sleep(0.2 * attempt)
        return call()

    def send(self, path: str, file: Path, progress: Callable[[int], None]) -> None:
        """POST a file's bytes; `progress` is told how many have gone."""
        size, seconds = file.stat().st_size, self.patience.slow
        headers = {"Content-Length": str(size)}
        deadline = monotonic() + seconds + size / self.patience.rate
        content = _blocks(file, progress, deadline)
        with self._open("POST", path, seconds, content=content, headers=headers) as response:
            self.accepted(path, response.status_code, b"".join(bounded(response, seconds)))

    def events(self, path: str, body: Mapping[str, Any], at_once: int = 1) -> Iterator[Json]:
        """The lines of a streamed reply. Raises OllamaRefused for a line with `error`.

        Of `at_once` requests the server may have all but one wait: nothing comes of them so long.
        """
        patience = self.patience
        first = max(patience.slow, min(patience.slow * at_once, patience.total))
        with self._open("POST", path, first, json=dict(body)) as response:
            response.request.extensions["timeout"]["read"] = patience.slow
            chunks = bounded(response, self.patience.total)
            for line in lines(chunks) if response.is_success else [b"".join(chunks)]:
                yield self.accepted(path, response.status_code, line)

    def accepted(self, path: str, status: int, reply: bytes) -> Json:
        """The reply as JSON. Raises OllamaRefused with the server's own words."""
        try:
            values = json.loads(reply or b"{}")
        except ValueError:
            values = None
        words = values.get("error") if isinstance(values, dict) else None
        if 200 <= status < 300 and words is None and isinstance(values, dict):
            return values
        said = str(words or reply[:300].decode(errors="replace").strip() or f"HTTP {status}")
        raise OllamaRefused(
            f"The Ollama server at {self.url} refused {_short(path)}: {said}",
            _ROOM if _FULL.search(said) else _LOOK,
        )

    @cached_property
    def _client(self) -> httpx.Client:
        secure = self.url.startswith("https:")
        # how many requests go out together, the callers decide
        limits = httpx.Limits(max_connections=None)
        return httpx.Client(trust_env=not self.is_loopback, verify=secure, limits=limits)

    @cached_property
    def _answered(self) -> Event:
        """Set once this server has answered anything."""
        return Event()

    @contextmanager
    def _open(
        self, method: str, path: str, seconds: float, **content: Any
    ) -> Iterator[httpx.Response]:
        """A streamed response; `seconds` is the longest wait for the next byte of it."""
        patience, started = self.patience, monotonic()
        timeout = httpx.Timeout(patience.quick, connect=patience.connect, read=seconds, pool=None)
        request = self._client.build_request(
            method, f"{self.url}{path}", timeout=timeout, **content
        )
        try:
            with closing(self._sent(request)) as response:
                yield response
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise OllamaUnreachable(f"No Ollama server answers at {self.url}.", START) from error
        except httpx.TimeoutException as error:
            raise OllamaUnreachable(
                f"The Ollama server at {self.url} stopped answering in {_short(path)}; "
                f"given up after {monotonic() - started:.0f} s.",
                "Look at its log; restart it, then run the same command again.",
            ) from error
        except httpx.TransportError as error:
            raise OllamaUnreachable(
                f"The connection to Ollama at {self.url} broke in {_short(path)}: {error}",
                "See that the server still runs, then run the same command again.",
            ) from error

    def _sent(self, request: httpx.Request) -> httpx.Response:
        """Nothing has gone where no connection was made: it is tried until a restart is over."""
        deadline = monotonic() + (self.patience.restart if self._answered.is_set() else 0)
        while True:
            try:
                response = self._client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if monotonic() >= deadline:
                    raise
                sleep(_RECONNECT_S)
            else:
                self._answered.set()
                return response


def server_url(host: str) -> str:
    """The URL that Ollama's own client would ask for this $OLLAMA_HOST.

    Raises PipeError for what names no server, such as one with a password in it.
    """
    text = host.strip().strip("\"'")
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "http", text
    default = {"http": 80, "https": 443}.get(scheme, 0) if mark else 11434
    place, _, path = rest.partition("/")
    name, port = _split_port(place)
    name = _connectable(name or "127.0.0.1")
    if not default or not name or "@" in place:
        raise PipeError("OLLAMA_HOST names no server.", "Write host:port or http://host:port.")
    number = int(port) if port.isdecimal() and int(port) < 65536 else default
    return f"{scheme}://{name}:{number}/{path}".rstrip("/")


def _short(path: str) -> str:
    """Without the digest, which nobody reads."""
    return path.partition("/sha256:")[0]


def _split_port(place: str) -> tuple[str, str]:
    """`[v6]:port`, `host:port`, a bare host or a bare IPv6 address."""
    if place.startswith("["):
        name, _, port = place[1:].partition("]")
        return name, port.removeprefix(":")
    if place.count(":") == 1:
        name, _, port = place.partition(":")
        return name, port
    return place, ""


def _connectable(name: str) -> str:
    """The host as a URL spells it: a server that listens everywhere is asked on loopback."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name if _HOST_NAME.fullmatch(name) else ""
    if address.version == 4:
        return "127.0.0.1" if address.is_unspecified else name
    return "[::1]" if address.is_unspecified else f"[{name}]"


def _blocks(path: Path, progress: Callable[[int], None], deadline: float) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if monotonic() > deadline:
                raise httpx.WriteTimeout("the upload does not end")
            yield block
            progress(sent := sent + len(block))
