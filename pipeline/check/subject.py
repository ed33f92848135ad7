"""What is checked: a run, a GGUF file, or a model in Ollama, and the engines that ask it."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipeline.chat import FORMATS, ChatFormat, Conversation
from pipeline.check.conversations import as_sent
from pipeline.check.measure import Measures
from pipeline.check.part import RunPart
from pipeline.engines.completion import Completion, Decoding
from pipeline.engines.gguf_file import GgufFile, read_gguf
from pipeline.engines.llamacpp import LlamaCppEngine
from pipeline.engines.ollama import REPEAT_LIMIT, ChatFields, ChatReply, OllamaServer
from pipeline.errors import OllamaRefused, PipeError
from pipeline.run import Emit, Progress, silent

T = TypeVar("T")
Need = Literal["run", "adapter", "file", "format", "server", "thinking"]

WHOLE = 20
"""Questions whose replies are drawn to their end."""
GREEDY = 50
"""Questions whose greedy replies are compared."""
_CONTROL = 3
_TURNS = 128
"""Tokens of a template around a short conversation, more than any is known to have."""
BEGINNING = 64
"""Tokens compared of a reply that is not drawn to its end."""


@dataclass
class Subject:
    """The parts of what is checked; `missing` says why one that belongs to it is not there."""

    files: Mapping[str, Path]
    """Type -> GGUF; the first is the one that Ollama serves under the plain name."""
    questions: Sequence[Conversation]
    open_file: Callable[[Path], LlamaCppEngine]
    n_ctx: int
    """Context in tokens that the model is to have where it is served."""
    limit: int
    """Most tokens of a reply, where the context has room for them."""
    format: ChatFormat | None = None
    """None for a template that is not ours."""
    part: RunPart | None = None
    server: OllamaServer | None = None
    name: str = ""
    """The model's name in Ollama."""
    thinks: bool = True
    missing: dict[Need, tuple[str, str]] = field(default_factory=dict)
    """Part -> reason and cure."""
    measures: Measures | None = None
    """Divergences, for a run."""
    emit: Emit = silent
    _llama: LlamaCppEngine | None = field(default=None, init=False)

    @property
    def parts(self) -> set[Need]:
        there: dict[Need, bool] = {
            "run": self.part is not None,
            "adapter": self.part is not None and not self.part.trained.is_full,
            "file": bool(self.files),
            "format": self.format is not None,
            "server": self.server is not None,
            "thinking": self.thinks,
        }
        return {part for part, is_there in there.items() if is_there}

    @property
    def run(self) -> RunPart:
        assert self.part is not None
        return self.part

    @property
    def divergences(self) -> Measures:
        assert self.measures is not None
        return self.measures

    @property
    def ollama(self) -> OllamaServer:
        assert self.server is not None
        return self.server

    @property
    def file(self) -> Path:
        return next(iter(self.files.values()))

    @cached_property
    def headers(self) -> dict[str, GgufFile]:
        return {type: read_gguf(path) for type, path in self.files.items()}

    @cached_property
    def tokens(self) -> list[str]:
        """The vocabulary of the first file."""
        header = next(iter(self.headers.values()))
        return [str(token) for token in header.metadata.get("tokenizer.ggml.tokens", ())]

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Tokens of the first file that are no text: gguf.TokenType.CONTROL."""
        header = next(iter(self.headers.values()))
        types = header.metadata.get("tokenizer.ggml.token_type", ())
        return frozenset(number for number, kind in enumerate(types) if kind == _CONTROL)

    @property
    def llama(self) -> LlamaCppEngine:
        """The first file in llama.cpp, opened when it is first asked."""
        if self._llama is None:
            self._llama = self.open_file(self.file)
        return self._llama

    def release(self) -> None:
        """Give llama.cpp's memory back; it opens again when it is asked."""
        if self._llama is not None:
            self._llama.close()
        self._llama = None

    def make_room(self) -> None:
        """Give back what llama.cpp and Ollama hold of the model, for others to be loaded."""
        self.release()
        if self.server is not None:
            with suppress(PipeError):  # a server that is gone holds nothing
                self.server.unload(self.name)

    def close(self) -> None:
        self.release()
        if self.measures is not None:
            self.measures.close()

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What llama.cpp says of the first file."""
        return self.llama.facts()

    @cached_property
    def version(self) -> tuple[int, ...]:
        """Of the server; empty where it does not say one."""
        return tuple(map(int, re.findall(r"\d+", self.ollama.version())[:3]))

    @cached_property
    def capable(self) -> bool:
        """Whether Ollama knows that the model thinks: to another it refuses think=true."""
        return "thinking" in (self.ollama.show(self.name).get("capabilities") or ())

    def ask(
        self,
        conversation: Conversation,
        *,
        think: bool | None = None,
        limit: int | None = None,
        format: Mapping[str, Any] | None = None,
        stream: bool = True,
    ) -> ChatReply:
        """One greedy reply of the served model, asked as our clients ask it.

        One that the server ends because it repeats itself says so in its `done_reason`.
        """
        most = limit or self.room(conversation)
        options = {"temperature": 0, "repeat_penalty": 1.0, "num_predict": most}
        fields: ChatFields = {"options": options, "think": think, "format": format}
        sent = as_sent(conversation, self.format)
        try:
            return self.ollama.chat(self.name, sent, stream=stream, **fields)
        except OllamaRefused as refusal:
            if REPEAT_LIMIT not in refusal.message:
                raise
            return ChatReply("", "", REPEAT_LIMIT, 0, 0)

    @cached_property
    def served_replies(self) -> list[ChatReply]:
        """Ollama's greedy replies to all questions, the first of them to their end."""
        think = self.capable if self.thinks else None
        asked = zip(self.questions, self.limits, strict=True)
        replies = (self.ask(question, think=think, limit=limit) for question, limit in asked)
        return list(self._shown("Ollama", replies))

    @cached_property
    def own_answers(self) -> list[Completion]:
        """llama.cpp's greedy answers to the same questions."""
        thinking = self.thinks and ("server" not in self.parts or self.capable)
        answers = (
            answer
            for question, limit in zip(self.questions, self.limits, strict=True)
            for answer in self.llama.answers([question], Decoding(limit), thinking=thinking)
        )
        return list(self._shown("llama.cpp", answers))

    def _shown(self, whose: str, replies: Iterator[T]) -> Iterator[T]:
        """The replies as they come, each told."""
        task, total = f"replies: {whose}", len(self.questions)
        for number, reply in enumerate(replies, 1):
            self.emit(Progress(task, number, total, "replies"))
            yield reply

    @cached_property
    def limits(self) -> list[int]:
        """Most tokens of each question's reply."""
        rooms = [self.room(question) for question in self.questions]
        return [*rooms[:WHOLE], *(min(room, BEGINNING) for room in rooms[WHOLE:])]

    def room(self, conversation: Conversation) -> int:
        """Most tokens of a reply that the context has room for, and that `limit` allows.

        Without an encoder the prompt's tokens are counted as its bytes, which are more.
        """
        if self.part is not None:
            prompt = len(self.part.encoder.prompt(conversation))
        else:
            prompt = _TURNS + sum(len(each["content"].encode()) for each in conversation)
        return max(1, min(self.limit, self.n_ctx - prompt - 1))

    @property
    def tags(self) -> ChatFormat:
        """The format whose thinking tags a reply is split by."""
        return self.format or next(iter(FORMATS.values()))
