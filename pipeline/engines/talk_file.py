"""A GGUF to talk to, in llama.cpp: no server needed."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event as Flag
from typing import Any, Protocol

from pipeline.chat import (
    ChatFormat,
    Encoder,
    Message,
    ReplySplitter,
    neutral_conversation,
    parse_reply,
)
from pipeline.child import Child
from pipeline.engines.gguf_file import GgufFile, read_gguf
from pipeline.engines.llamacpp import REBUILD
from pipeline.engines.talk import (
    Clock,
    Ending,
    Events,
    Manner,
    Piece,
    Trim,
    fitted,
    left_out_remark,
    neutral_remark,
    tags_remark,
)
from pipeline.errors import NativeCrash, PipeError

LARGEST_CONTEXT = 8192
"""Tokens of context for a file of which we know only what it was trained for."""
_FOR_REPLY = 4
"""A prompt leaves one part in so many of the context to the reply, if the reply may be so long."""

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
"""Token types that llama.cpp finds in text before it splits words: cache_special_tokens in its
src/llama-vocab.cpp; numbers: TokenType of the gguf package."""

Ask = Callable[..., Any]


@dataclass(frozen=True)
class Prompt:
    ids: list[int]
    opened: bool = False
    """True where the prompt itself has opened the thinking block."""


class Prompter(Protocol):
    """Makes the prompt of a conversation; `ask` asks the child."""

    format: ChatFormat

    def alters(self, conversation: Sequence[Message]) -> bool:
        """True where a text is changed, so that nothing in it can become a control token."""

    def prompt(self, conversation: Sequence[Message], thinking: bool, ask: Ask) -> Prompt: ...


class RunPrompter:
    """As the run's training encodes it: text can never become a control token."""

    def __init__(self, encoder: Encoder) -> None:
        self.format, self._encoder = encoder.format, encoder

    def alters(self, conversation: Sequence[Message]) -> bool:
        return False

    def prompt(self, conversation: Sequence[Message], thinking: bool, ask: Ask) -> Prompt:
        return Prompt(self._encoder.prompt(conversation, thinking=thinking))


class TemplatePrompter:
    """By the template that a file of unknown origin carries; `format` knows the thinking's tags.

    Its text is parsed for control tokens: those that a message spells get a space. Raises PipeError
    for a file without a template.
    """

    def __init__(self, header: GgufFile, format: ChatFormat) -> None:
        template = header.metadata.get("tokenizer.chat_template")
        if not template:
            raise PipeError(
                f"{header.path} carries no chat template, so nobody knows how to ask it.",
                "Export it with one: pipe export --base DIR --out DIR",
            )
        self.format, self._template = format, str(template)
        tags = (format.think, format.end_think)
        self._controls = _control_texts(header, self._template, tags)
        self._with_tags = _control_texts(header, self._template, ())

    def neutral(self, text: str) -> str:
        """With a space in what spells a control token, by Llama's names or by the file's own."""
        return _broken(self._controls, self.format.neutral(text))

    def alters(self, conversation: Sequence[Message]) -> bool:
        return self._sent(conversation) != self.format.shown(conversation)

    def prompt(self, conversation: Sequence[Message], thinking: bool, ask: Ask) -> Prompt:
        rendered = ask("render", messages=self._sent(conversation), enable_thinking=thinking)
        text = str(rendered["prompt"]).removeprefix(rendered["bos"])
        opened = text.rstrip().endswith(self.format.think)
        if not thinking and opened:
            text, opened = f"{text.rstrip()}\n\n{self.format.end_think}\n\n", False
        elif not thinking and self._thinks_unasked:
            text += self.format.empty_thinking
        return Prompt(list(ask("tokenize", text=text, add_bos=True)), opened)

    def _sent(self, conversation: Sequence[Message]) -> list[Message]:
        """With a space in the thinking's tags, too, where they are tokens of the file."""
        return neutral_conversation(
            conversation,
            self.format,
            lambda text: _broken(self._with_tags, self.format.neutral(text)),
        )

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
        if self._prompter.alters(conversation):
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
        said = {"thinking": "", "answer": ""}
        whole = self._prompter.format.think if prompt.opened else ""
        list(splitter.feed(whole))
        left = min(limit, self._context - len(prompt.ids))
        self._ask("begin", ids=prompt.ids, max_new_tokens=left, **self._drawing(manner))
        while "reason" not in step and not self._stopped.is_set():
            step = self._ask("step")
            if step["tokens"]:
                clock.tick()
            ended, whole = "reason" in step, whole + step["text"]
            parts = [*splitter.feed(step["text"]), *(splitter.end() if ended else ())]
            for part, text in parts:
                if inside := trim.feed(part, text):
                    said[part] += inside
                    yield Piece(part, inside, step["tokens"])
        reason = step.get("reason", "interrupted")
        ending = clock.ending(reason, step["tokens"], len(prompt.ids))
        yield from self._ended(ending, whole, said)

    def _ended(self, ending: Ending, whole: str, said: Mapping[str, str]) -> Events:
        """The ending, with the reply taken apart as eval does it where the stream did otherwise."""
        reply = parse_reply(whole, self._prompter.format)
        if self._prompter.format.end_think in whole and (
            (reply.thinking, reply.answer) != (said["thinking"], said["answer"])
        ):
            yield tags_remark()
            ending = replace(ending, reply=reply)
        yield ending

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


def _broken(marks: re.Pattern[str], text: str) -> str:
    """The text with a space after the first letter of each mark in it."""
    while marks.search(text):  # once more for those that overlapped
        text = marks.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
    return text


def _control_texts(header: GgufFile, template: str, spared: Sequence[str]) -> re.Pattern[str]:
    """Finds the texts of a file's control tokens; of its user-defined ones, which are runs of
    spaces or HTML tags, too, those that its template writes.

    A text with white space in it is no marker, and a single letter cannot be broken.
    """
    keys = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type")
    values = (header.metadata.get(key) for key in keys)
    tokens, types = (value if isinstance(value, list) else [] for value in values)
    texts = {
        str(text)
        for text, type in zip(tokens, types, strict=False)
        if type in (_UNKNOWN, _CONTROL) or (type == _USER_DEFINED and str(text) in template)
    }
    marks = [text for text in texts - set(spared) if len(text) > 1 and text.split() == [text]]
    longest_first = sorted(marks, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
