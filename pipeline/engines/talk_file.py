"""A GGUF to talk to, in llama.cpp: no server needed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from typing import Any, Protocol

from pipeline.chat import ChatFormat, Encoder, Message, ReplySplitter, neutral_conversation
from pipeline.child import Child
from pipeline.engines.gguf_file import GgufFile, read_gguf
from pipeline.engines.llamacpp import REBUILD
from pipeline.engines.talk import (
    Clock,
    Events,
    Manner,
    Piece,
    Trim,
    fitted,
    left_out_remark,
    neutral_remark,
    spells_control_tokens,
)
from pipeline.errors import NativeCrash, PipeError

LARGEST_CONTEXT = 8192
"""Tokens of context for a file of which we know only what it was trained for."""
_FOR_REPLY = 4
"""A prompt leaves one part in so many of the context to the reply, if the reply may be so long."""

Ask = Callable[..., Any]


@dataclass(frozen=True)
class Prompt:
    ids: list[int]
    opened: bool = False
    """True where the prompt itself has opened the thinking block."""


class Prompter(Protocol):
    """Makes the prompt of a conversation; `ask` asks the child."""

    format: ChatFormat
    parses_text: bool
    """True where text that spells a control token would become one."""

    def prompt(self, conversation: Sequence[Message], thinking: bool, ask: Ask) -> Prompt: ...


class RunPrompter:
    """As the run's training encodes it: text can never become a control token."""

    parses_text = False

    def __init__(self, encoder: Encoder) -> None:
        self.format, self._encoder = encoder.format, encoder

    def prompt(self, conversation: Sequence[Message], thinking: bool, ask: Ask) -> Prompt:
        return Prompt(self._encoder.prompt(conversation, thinking=thinking))


class TemplatePrompter:
    """By the template that a file of unknown origin carries; `format` knows the thinking's tags.

    Raises PipeError for a file without one.
    """

    parses_text = True

    def __init__(self, header: GgufFile, format: ChatFormat) -> None:
        template = header.metadata.get("tokenizer.chat_template")
        if not template:
            raise PipeError(
                f"{header.path} carries no chat template, so nobody knows how to ask it.",
                "Export it with one: pipe export --base DIR --out DIR",
            )
        self.format, self._template = format, str(template)

    def prompt(self, conversation: Sequence[Message], thinking: bool, ask: Ask) -> Prompt:
        neutral = neutral_conversation(conversation, self.format)
        rendered = ask("render", messages=neutral, enable_thinking=thinking)
        text = str(rendered["prompt"]).removeprefix(rendered["bos"])
        opened = text.rstrip().endswith(self.format.think)
        if not thinking and opened:
            text, opened = f"{text.rstrip()}\n\n{self.format.end_think}\n\n", False
        elif not thinking and self._thinks_unasked:
            text += self.format.empty_thinking
        return Prompt(list(ask("tokenize", text=text, add_bos=True)), opened)

    @property
    def _thinks_unasked(self) -> bool:
        """True for a template that knows of thinking and not of a switch for it."""
        return self.format.think in self._template and "enable_thinking" not in self._template


class FilePartner:
    """A GGUF in a child process; what a prompt shares with the last is not decoded again.

    `sampling` holds temperature, top_p and repeat_penalty; `threads` None takes all cores.
    """

    def __init__(
        self,
        gguf: Path,
        prompter: Prompter,
        *,
        n_ctx: int,
        sampling: Mapping[str, float],
        threads: int | None = None,
        name: str = "",
    ) -> None:
        read_gguf(gguf)
        self.name = name or gguf.name
        self.n_ctx: int | None = n_ctx
        self._context, self._prompter, self._sampling = n_ctx, prompter, sampling
        self._load = {"path": str(gguf), "gpu_layers": -1, "threads": threads or 0}
        self._stopped = Flag()
        self._process: Child | None = None
        self._opened()

    def stream(self, conversation: Sequence[Message], manner: Manner) -> Events:
        """As a Partner does. A child that crashed is started anew."""
        clock = Clock()
        self._stopped.clear()
        if self._prompter.parses_text and spells_control_tokens(
            conversation, self._prompter.format
        ):
            yield neutral_remark()
        limit = min(manner.max_new_tokens or self._context, self._context)
        room = self._context - max(1, min(limit, self._context // _FOR_REPLY))
        kept, left_out = fitted(conversation, lambda c: len(self._prompt(c, manner).ids), room)
        if left_out:
            yield left_out_remark(left_out)
        yield from self._reply(self._prompt(kept, manner), manner, limit, clock)

    def stop(self) -> bool:
        self._stopped.set()
        return True

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def _reply(self, prompt: Prompt, manner: Manner, limit: int, clock: Clock) -> Events:
        splitter, trim = ReplySplitter(self._prompter.format), Trim()
        step: dict[str, Any] = {"tokens": 0}
        if prompt.opened:
            list(splitter.feed(self._prompter.format.think))
        left = min(limit, self._context - len(prompt.ids))
        self._ask("begin", ids=prompt.ids, max_new_tokens=left, **self._drawing(manner))
        while "reason" not in step and not self._stopped.is_set():
            step = self._ask("step")
            if step["tokens"]:
                clock.tick()
            ended = "reason" in step
            parts = [*splitter.feed(step["text"]), *(splitter.end() if ended else ())]
            for part, text in parts:
                if inside := trim.feed(part, text):
                    yield Piece(part, inside, step["tokens"])
        reason = step.get("reason", "interrupted")
        yield clock.ending(reason, step["tokens"], len(prompt.ids))

    def _drawing(self, manner: Manner) -> dict[str, float]:
        drawing = {**self._sampling, "seed": manner.seed}
        return drawing | ({} if manner.temperature is None else {"temperature": manner.temperature})

    def _prompt(self, conversation: Sequence[Message], manner: Manner) -> Prompt:
        return self._prompter.prompt(conversation, manner.thinking, self._ask)

    def _ask(self, operation: str, **arguments: Any) -> Any:
        try:
            return self._opened().ask(operation, **arguments)
        except (NativeCrash, KeyboardInterrupt):
            # a child that was left in the middle of an answer would give it to the next question
            self.close()
            raise

    def _opened(self) -> Child:
        if self._process is None:
            child = Child("pipeline.engines.talk_worker", hint=REBUILD)
            try:
                child.ask("load", n_ctx=self._context, **self._load)
            except BaseException:
                child.kill()
                raise
            self._process = child
        return self._process
