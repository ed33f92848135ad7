"""A client for a local Ollama server, with the API fields that Ollama's own client lacks."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from pipeline.chat import Message
from pipeline.engines.ollama_http import Connection, Json, Patience
from pipeline.errors import OllamaRefused

Kind = Literal["thinking", "content"]

REPEAT_LIMIT = "token repeat limit reached"
"""How Ollama ends a reply that says one token over and over: with an error, not a reply."""

TOO_LONG = re.compile(r"exceed_context_size|longer than the context length|exceeds maximum context")
"""How Ollama says that a prompt does not fit: llama-server's type of error, and its own words."""

_NUMBERS = (
    "prompt_eval_count", "eval_count",
    "total_duration", "load_duration", "prompt_eval_duration", "eval_duration",
)  # fmt: skip
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FROM = re.compile(r"^FROM (?P<path>.*sha256[-:](?P<digest>[0-9a-f]{64}))\s*$", re.MULTILINE)


@dataclass(frozen=True)
class ChatReply:
    thinking: str
    content: str
    done_reason: str
    """`stop`, `length`, or empty where the server ended without saying why."""
    prompt_eval_count: int
    eval_count: int
    total_duration: int = 0
    """Nanoseconds by the server's clock, as the other durations."""
    load_duration: int = 0
    prompt_eval_duration: int = 0
    eval_duration: int = 0


class ChatFields(TypedDict, total=False):
    """Fields of /api/chat, as Ollama names them; None leaves one to the server."""

    think: bool | None
    """Left to the server, it thinks if the model can."""
    options: Mapping[str, Any] | None
    """temperature, seed, num_predict, num_ctx, ..."""
    format: Mapping[str, Any] | str | None
    """`json` or a JSON schema."""
    truncate: bool | None
    """False: a prompt beyond the context length is an error; else early messages are dropped."""
    shift: bool | None
    """False: a reply ends at the context length; else the context's beginning is dropped."""
    keep_alive: float | None
    """Seconds that the model stays loaded after the reply."""


@dataclass(frozen=True)
class OllamaServer:
    """One server. Every call raises OllamaUnreachable or OllamaRefused.

    A loopback server is never asked through a proxy, and no key is ever sent.
    """

    host: str = ""
    """As $OLLAMA_HOST may say it: `host`, `host:port`, `:port`, with or without a scheme."""
    patience: Patience = field(default_factory=Patience)

    @classmethod
    def from_environment(cls) -> "OllamaServer":
        return cls(os.environ.get("OLLAMA_HOST", ""))

    @property
    def url(self) -> str:
        return self._http.url

    @property
    def is_loopback(self) -> bool:
        return self._http.is_loopback

    def version(self) -> str:
        return str(self._http.ask("GET", "/api/version").get("version", ""))

    def tags(self) -> list[Json]:
        """The models there are, each with `name`, `size` and `digest` (its manifest's)."""
        return list(self._http.ask("GET", "/api/tags").get("models") or [])

    def running(self) -> list[Json]:
        """The loaded models, each with `name`, `size`, `size_vram` and `context_length`."""
        return list(self._http.ask("GET", "/api/ps").get("models") or [])

    def show(self, name: str) -> Json:
        return self._http.ask("POST", "/api/show", {"model": name})

    def find(self, name: str) -> Json | None:
        """As `show`, or None where no model has that name; Ollama ignores its letters' case."""
        status, reply = self._http.reply("POST", "/api/show", {"model": name})
        return None if status == 404 else self._http.accepted("/api/show", status, reply)

    def runs(self, name: str, digest: str) -> bool:
        """True where a model of that name is there and its weights have that digest.

        `digest` is `sha256:` and hex. A name alone proves nothing: another run may bear it now.
        """
        shown = self.find(name)
        return shown is not None and model_blob(shown)[1] == digest

    def copy(self, source: str, target: str) -> None:
        """Give a model a second name; one that bears it already is replaced."""
        names = {"source": source, "destination": target}
        self._http.accepted("/api/copy", *self._http.once("POST", "/api/copy", names))

    def delete(self, name: str) -> None:
        status, reply = self._http.once("DELETE", "/api/delete", {"model": name})
        self._http.accepted("/api/delete", status, reply)

    def unload(self, name: str) -> None:
        """End the model's runner, which would go on with the file that it has loaded."""
        self._http.ask("POST", "/api/generate", {"model": name, "keep_alive": 0})

    def has_blob(self, digest: str) -> bool:
        """True when a file of that digest is there; the server does not hash it again."""
        path = f"/api/blobs/{_checked(digest)}"
        status, reply = self._http.reply("HEAD", path)
        return status != 404 and self._http.accepted(path, status, reply) is not None

    def upload_blob(self, path: Path, digest: str, progress: Callable[[int], None]) -> bool:
        """Send a file unless the server has it; True when it was sent.

        `digest` is `sha256:` and 64 lower-case hex digits; the server refuses other content.
        `progress` is told the bytes sent so far.
        """
        if self.has_blob(digest):
            return False
        self._http.repeat(lambda: self._send_blob(path, digest, progress))
        return True

    def create(self, request: Mapping[str, Any], on_status: Callable[[str], None]) -> None:
        """Make a model; `request` is the body of /api/create. Never repeated by itself.

        Once the first status is out, errors come with HTTP 200: only `success` is success.
        """
        status = ""
        for event in self._http.events("/api/create", {**request, "stream": True}):
            status = str(event.get("status", ""))
            on_status(status)
        if status != "success":
            raise OllamaRefused(
                f"The Ollama server at {self.url} ended at {status or 'nothing'!r} "
                f"while it made {request.get('model')}.",
                "Its log says why; then run: pipe register",
            )

    def chat(
        self,
        name: str,
        messages: Sequence[Message],
        *,
        stream: bool = True,
        **fields: Unpack[ChatFields],
    ) -> ChatReply:
        """The whole reply; with `stream` False the server sends it in one piece."""
        text: dict[Kind, str] = {"thinking": "", "content": ""}
        last: Json = {}
        body = _chat_body(name, messages, fields) | {"stream": stream}
        for last in self._http.events("/api/chat", body):
            for kind, piece in _pieces(last):
                text[kind] += piece
        reason = str(last.get("done_reason", ""))
        numbers = {key: int(last.get(key, 0)) for key in _NUMBERS}
        return ChatReply(text["thinking"], text["content"], reason, **numbers)

    def rendered_prompt(
        self, name: str, messages: Sequence[Message], think: bool | None = None
    ) -> str:
        """The prompt as the server's template makes it; BOS comes later, as an id."""
        body = _chat_body(name, messages, {"think": think}) | {"_debug_render_only": True}
        reply = self._http.ask("POST", "/api/chat", body, self.patience.slow)
        prompt = (reply.get("_debug_info") or {}).get("rendered_template")
        if prompt is None:
            raise OllamaRefused(
                f"The Ollama server at {self.url} does not show rendered prompts.",
                "Ollama does since 0.11.5: https://ollama.com/download",
            )
        return str(prompt)

    def _send_blob(self, path: Path, digest: str, progress: Callable[[int], None]) -> None:
        """A connection that broke after the last byte leaves the blob there."""
        if not self.has_blob(digest):
            self._http.send(f"/api/blobs/{digest}", path, progress)

    @cached_property
    def _http(self) -> Connection:
        return Connection(self.host, self.patience)


def full_name(name: str) -> str:
    """As Ollama compares names: with a tag, in lower case."""
    return (name if ":" in name.rpartition("/")[2] else f"{name}:latest").lower()


def model_blob(shown: Mapping[str, Any]) -> tuple[str, str]:
    """Path on the server and digest (`sha256:` + hex) of a shown model's weights.

    Both are empty for a model without a GGUF of its own, such as one that runs in the cloud.
    """
    found = _FROM.search(str(shown.get("modelfile", "")))
    return (found["path"], f"sha256:{found['digest']}") if found else ("", "")


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is not sha256: and 64 lower-case hex digits")
    return digest


def _chat_body(name: str, messages: Sequence[Message], fields: ChatFields) -> Json:
    asked = {key: value for key, value in fields.items() if value is not None}
    return {"model": name, "messages": list(messages), "options": {}, **asked}


def _pieces(event: Json) -> Iterator[tuple[Kind, str]]:
    message = event.get("message") or {}
    kinds: tuple[Kind, Kind] = ("thinking", "content")
    for kind in kinds:
        if piece := message.get(kind):
            yield kind, str(piece)
