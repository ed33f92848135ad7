"""A chat format: the one owner of how a conversation becomes text.

Training, GGUF metadata, the Modelfile and the checks all take it from the same object.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pipeline.assets import asset
from pipeline.chat.pieces import Control, Conversation, Message, Piece, Tag, Text, joined, text_of

_GIVES_EMPTY_BLOCK = "and $.IsThinkSet (not $.Think)"
"""When the Go templates give an empty thinking block."""


@dataclass(frozen=True)
class ChatFormat:
    """Control tokens around turns, `<think>` around the reasoning.

    A turn is `start_header` + role + `end_header` + `gap` + content + `end_of_turn` + `after_turn`.
    The target text is `<think>\\n` + reasoning + `\\n</think>\\n\\n` + answer + end of turn.
    Content is stripped, and the reasoning of earlier turns is dropped.
    """

    name: str
    bos: str | None
    """None for models that are trained without one."""
    start_header: str
    end_header: str | None
    gap: str
    end_of_turn: str
    after_turn: str
    ends: tuple[str, ...]
    """Control tokens that end a reply; training writes `end_of_turn` only."""
    pad: str
    think: str
    end_think: str
    stops: tuple[str, ...]
    """Strings that end a reply, for the Modelfile."""
    spelled: re.Pattern[str]
    """Finds where text spells a token that is not text, reserved ones too; matches its first
    letters, which a space behind them makes harmless."""
    normal_form: Literal["NFC"] | None
    """Unicode form that the family's tokenizer gives text before it encodes it. llama.cpp does
    not: the text itself is brought into this form, so that both see the same."""
    note: str
    """What a model loses by this format."""
    thinks: bool = True
    """Without, no reply has a thinking block, and no empty one is given."""

    @cached_property
    def jinja(self) -> str:
        """Chat template for Transformers and the GGUF.

        It names no tools: Ollama would then take it instead of its own template.
        """
        text = asset(f"modelfiles/{self.name}.jinja").read_text(encoding="utf-8").rstrip("\n")
        return text if self.thinks else "{%- set enable_thinking = true %}\n" + text

    @cached_property
    def ollama_template(self) -> str:
        """Go template; no newline at its end, which would join the generation prompt."""
        text = asset(f"modelfiles/{self.name}.gotmpl").read_text(encoding="utf-8").rstrip("\n")
        return text if self.thinks else text.replace(_GIVES_EMPTY_BLOCK, "false")

    @property
    def empty_thinking(self) -> str:
        """Stands before an answer that is to come without thinking."""
        return text_of(self._no_thinking())

    @property
    def needs(self) -> tuple[str, ...]:
        """The control tokens that it writes."""
        names = (self.bos, self.start_header, self.end_header, self.end_of_turn)
        return tuple(name for name in names if name is not None)

    def fingerprint(self) -> dict[str, str]:
        """Name and sha256 of everything that the format means; `gap` and `after_turn` stand in
        the templates."""
        meaning = [self.jinja, self.ollama_template, *self.stops, *self.ends]
        meaning += [self.normal_form] if self.normal_form else []
        controls = [self.bos, self.start_header, self.end_header, self.end_of_turn, self.pad]
        text = json.dumps([self.name, *controls, self.think, self.end_think, *meaning])
        return {"name": self.name, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    def prompt(self, conversation: Conversation, *, thinking: bool = True) -> Iterator[Piece]:
        """The pieces up to where the model's reply begins.

        Without `thinking`, an empty thinking block is already given where the format thinks at
        all. A conversation that ends with
        the assistant's words is gone on with: they begin the reply, stripped, and say themselves
        whether it thinks. What the model then writes is the reply without them.
        """
        turns = self.shown(conversation)
        begun = [] if thinking else list(self._no_thinking())
        if turns and turns[-1]["role"] == "assistant":
            begun = list(self.begun(turns.pop()["content"]))
        pieces: list[Piece] = [] if self.bos is None else [Control(self.bos)]
        for message in turns:
            pieces += self._header(message["role"])
            pieces += [Text(message["content"]), Control(self.end_of_turn), Text(self.after_turn)]
        yield from joined([*pieces, *self._header("assistant"), *begun])

    def target(self, reasoning: str | None, answer: str) -> str:
        """The reply as text, without its end of turn; None gives the answer alone."""
        return text_of(self.reply(reasoning, answer))

    def reply(self, reasoning: str | None, answer: str) -> Iterator[Piece]:
        """The pieces of `target`: the only tags are those of its own thinking block."""
        if reasoning is not None and self.thinks:
            yield Tag(self.think)
            yield Text(f"\n{self.normal(reasoning).strip()}\n")
            yield Tag(self.end_think)
            yield Text("\n\n")
        yield Text(self.normal(answer).strip())

    def begun(self, words: str) -> Iterator[Piece]:
        """A prefill, as `shown` gives it. Its tags are those of a block that it begins with; what
        else spells one is text."""
        if not words.startswith(self.think):
            yield Text(words)
            return
        yield Tag(self.think)
        inside, closed, rest = words.removeprefix(self.think).rpartition(self.end_think)
        if closed:
            yield Text(inside)
            yield Tag(closed)
        yield Text(rest)

    def render(self, conversation: Conversation, *, thinking: bool = True) -> str:
        """The generation prompt as text, as the Jinja template gives it."""
        return text_of(self.prompt(conversation, thinking=thinking))

    def neutral(self, text: str) -> str:
        """The text with a space in what spells a token that is none: `<| eot_id|>`, `< think>`.

        Servers that are sent text, not ids, would read it as that token.
        """
        return self.spelled.sub(r"\g<0> ", text)

    def normal(self, text: str) -> str:
        """The text in the tokenizer's Unicode form."""
        return text if self.normal_form is None else unicodedata.normalize(self.normal_form, text)

    def shown(self, conversation: Conversation) -> list[Message]:
        """The conversation with each content as `prompt` shows it.

        Contents are stripped, in the tokenizer's Unicode form; of an earlier reply stands its
        answer only, a prefill stands whole.
        """
        last = len(conversation) - 1
        shown: list[Message] = []
        for place, message in enumerate(conversation):
            content = self.normal(message["content"]).strip()
            if message["role"] == "assistant" and place < last:
                content = content.rsplit(self.end_think, 1)[-1].strip()
            shown.append({"role": message["role"], "content": content})
        return shown

    def _header(self, role: str) -> Iterator[Piece]:
        yield Control(self.start_header)
        yield Text(role)
        if self.end_header is not None:
            yield Control(self.end_header)
        yield Text(self.gap)

    def _no_thinking(self) -> Iterator[Piece]:
        if not self.thinks:
            return
        yield Tag(self.think)
        yield Text("\n\n")
        yield Tag(self.end_think)
        yield Text("\n\n")


def neutral_conversation(
    conversation: Conversation,
    format: ChatFormat,
    neutral: Callable[[str], str] | None = None,
) -> list[Message]:
    """The conversation as a server must get it that renders and then parses control tokens.

    Contents are as `ChatFormat.shown` gives them, which Ollama's template leaves to its client, and
    text that spells a control token is made harmless, by `neutral` or else by the format's own; the
    tags of a prefill stay.
    """
    harmless = neutral or format.neutral
    sent = format.shown(conversation)
    for place, message in enumerate(sent, 1):
        is_prefill = message["role"] == "assistant" and place == len(sent)
        pieces = format.begun(message["content"]) if is_prefill else [Text(message["content"])]
        message["content"] = "".join(
            harmless(piece.text) if isinstance(piece, Text) else text_of([piece])
            for piece in pieces
        )
    return sent


def render_jinja(template: str, conversation: Conversation, **variables: Any) -> str:
    """Render a chat template as Transformers does: sandboxed, blocks trimmed.

    Variables: `bos_token`, `add_generation_prompt`, `enable_thinking`.
    """
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=list(conversation), **variables)
