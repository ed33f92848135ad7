"""A model in Ollama to talk to; the server splits the reply itself."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pipeline.chat import ChatFormat, Message, neutral_conversation
from pipeline.engines.ollama import OllamaServer
from pipeline.engines.ollama_http import Connection, Json
from pipeline.engines.talk import (
    Clock,
    Events,
    Manner,
    Piece,
    Remark,
    Trim,
    left_out_remark,
    neutral_remark,
    spells_control_tokens,
    without_oldest,
)
from pipeline.errors import OllamaRefused, OllamaUnreachable

_TOO_LONG = re.compile(
    r"exceed_context_size|longer than the context length|exceeds maximum context"
)
"""How Ollama says that a prompt does not fit: llama-server's type of error, and its own words."""


class ServedPartner:
    """A model by its name in Ollama. Raises PipeError where there is none of that name.

    Neither prompt nor reply is cut silently: the server is asked to truncate and shift nothing.
    """

    def __init__(self, server: OllamaServer, model: str, format: ChatFormat) -> None:
        shown = server.find(model)
        if shown is None:
            there = ", ".join(sorted(tag["name"] for tag in server.tags())) or "none at all"
            raise OllamaRefused(
                f"The Ollama server at {server.url} has no model {model}; it has {there}.",
                "Register this run's: pipe register",
            )
        self.name = model
        self.n_ctx = context_length(shown)
        self._thinks = "thinking" in (shown.get("capabilities") or ())
        self._server, self._format = server, format
        self._connection = Connection(server.host, server.patience)

    def stream(self, conversation: Sequence[Message], manner: Manner) -> Events:
        """As a Partner does; Piece.tokens counts the server's pieces."""
        clock = Clock()
        if not manner.thinking and not self._thinks:
            yield Remark("thinking", f"Ollama does not take {self.name} for a model that thinks.")
        if spells_control_tokens(conversation, self._format):
            yield neutral_remark()
        sent = neutral_conversation(conversation, self._format)
        while True:
            try:
                yield from self._reply(sent, manner, clock)
            except OllamaRefused as refusal:
                shorter = without_oldest(sent)
                if not _TOO_LONG.search(refusal.message) or len(shorter) == len(sent):
                    raise
                sent = shorter
            else:
                return
            yield left_out_remark(len(conversation) - len(sent))

    def stop(self) -> bool:
        return False

    def close(self) -> None:
        """The server keeps the model for its other clients."""

    def _reply(self, sent: Sequence[Message], manner: Manner, clock: Clock) -> Events:
        trim, pieces, last = Trim(), 0, {}
        for last in self._connection.events("/api/chat", self._body(sent, manner)):
            for part, text in _parts(last):
                clock.tick()
                pieces += 1
                if inside := trim.feed(part, text):
                    yield Piece(part, inside, pieces)
        if not last.get("done"):
            raise OllamaUnreachable(
                f"The Ollama server at {self._server.url} ended in the middle of its reply.",
                "Its log says why; the conversation goes on once it answers again.",
            )
        tokens = int(last.get("eval_count", 0))
        prompt = int(last.get("prompt_eval_count", 0))
        if self.n_ctx and prompt + tokens > self.n_ctx:
            yield Remark(
                "shifted",
                f"Ollama dropped the beginning of what it saw: {prompt + tokens:,} tokens went "
                f"through a context of {self.n_ctx:,}.",
            )
        yield clock.ending(_reason(last), tokens, prompt, _speed(last))

    def _body(self, sent: Sequence[Message], manner: Manner) -> Json:
        options: dict[str, Any] = {"seed": manner.seed}
        if manner.temperature is not None:
            options["temperature"] = manner.temperature
        if limit := manner.max_new_tokens or self.n_ctx:
            options["num_predict"] = limit
        body: Json = {
            "model": self.name,
            "messages": list(sent),
            "options": options,
            "truncate": False,
            "shift": False,
        }
        return body | ({"think": manner.thinking} if self._thinks else {})


def context_length(shown: Mapping[str, Any]) -> int | None:
    """`num_ctx` of a model as /api/show gives it, in tokens; None where the server decides."""
    found = re.search(r"^num_ctx\s+(\d+)", str(shown.get("parameters") or ""), re.MULTILINE)
    return int(found[1]) if found else None


def _reason(event: Json) -> Literal["stop", "length"]:
    return "stop" if event.get("done_reason") == "stop" else "length"


def _speed(event: Json) -> float | None:
    """Tokens a second by the server's own clock: several may come in one piece over the wire."""
    nanoseconds = int(event.get("eval_duration", 0))
    return 1e9 * int(event.get("eval_count", 0)) / nanoseconds if nanoseconds else None


def _parts(event: Json) -> Iterator[tuple[Literal["thinking", "answer"], str]]:
    message = event.get("message") or {}
    if text := message.get("thinking"):
        yield "thinking", str(text)
    if text := message.get("content"):
        yield "answer", str(text)
