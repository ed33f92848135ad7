"""A model in Ollama to talk to; the server splits the reply itself."""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from queue import SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import Any, Literal

from pipeline.chat import ChatFormat, Message, neutral_conversation
from pipeline.engines.ollama import REPEAT_LIMIT, TOO_LONG, OllamaServer
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
    without_oldest,
)
from pipeline.errors import OllamaRefused, OllamaUnreachable, PipeError


class Arriving:
    """A streamed reply that a thread of its own reads, so that its reader can be told to stop.

    A read that hangs cannot be ended from outside: its thread is left to the server's patience, and
    nobody waits for it, not even the end of the process.
    """

    def __init__(self, events: Iterator[Json]) -> None:
        self.interrupted = False
        self._left = Flag()
        # a signal handler may put into this kind of queue while the same thread waits for it
        self._told: SimpleQueue[Json | PipeError | None] = SimpleQueue()
        Thread(target=self._read, args=(events,), daemon=True).start()

    def events(self) -> Generator[Json, None, None]:
        """Raises the PipeError that the reading raised."""
        try:
            while not self.interrupted and (event := self._told.get()) is not None:
                if isinstance(event, PipeError):
                    raise event
                yield event
        finally:
            self._left.set()

    def stop(self) -> None:
        """End the iteration, from any thread or signal handler."""
        self.interrupted = True
        self._told.put(None)

    def _read(self, events: Iterator[Json]) -> None:
        try:
            for event in events:
                if self._left.is_set():
                    return
                self._told.put(event)
        except PipeError as error:
            self._told.put(error)
        finally:
            self._told.put(None)


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
        self._arriving: Arriving | None = None

    def stream(self, conversation: Sequence[Message], manner: Manner) -> Events:
        """As a Partner does; Piece.tokens counts the server's pieces."""
        clock = Clock()
        if not manner.thinking and not self._thinks:
            yield Remark("thinking", f"Ollama does not take {self.name} for a model that thinks.")
        sent = neutral_conversation(conversation, self._format)
        if sent != self._format.shown(conversation):
            yield neutral_remark()
        while True:
            with closing(self._reply(sent, manner, clock)) as events:
                try:
                    first = next(events)
                except OllamaRefused as refusal:
                    shorter = without_oldest(sent)
                    if not TOO_LONG.search(refusal.message) or len(shorter) == len(sent):
                        raise
                    sent = shorter
                    continue
                if len(sent) < len(conversation):
                    yield left_out_remark(len(conversation) - len(sent))
                yield first
                yield from events
                return

    def stop(self) -> bool:
        """The server goes on until it notices that nobody listens: at its next piece."""
        if self._arriving:
            self._arriving.stop()
        return True

    def close(self) -> None:
        """The server keeps the model for its other clients."""

    def _reply(self, sent: Sequence[Message], manner: Manner, clock: Clock) -> Events:
        trim, pieces, last = Trim(), 0, {}
        arriving = self._arriving = Arriving(
            self._connection.events("/api/chat", self._body(sent, manner))
        )
        try:
            with closing(arriving.events()) as events:
                for last in events:
                    for part, text in _parts(last):
                        clock.tick()
                        pieces += 1
                        if inside := trim.feed(part, text):
                            yield Piece(part, inside, pieces)
        except OllamaRefused as refusal:
            if REPEAT_LIMIT not in refusal.message:
                raise
            yield Remark("repeats", "Ollama ended the reply: it said one token over and over.")
            yield clock.ending("length", pieces, 0)
            return
        yield from self._ended(last, pieces, clock, interrupted=arriving.interrupted)

    def _ended(self, last: Json, pieces: int, clock: Clock, *, interrupted: bool) -> Events:
        """The ending by the server's figures. Raises OllamaUnreachable where it said no end."""
        if interrupted and not last.get("done"):
            yield clock.ending("interrupted", pieces, 0)
            return
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
