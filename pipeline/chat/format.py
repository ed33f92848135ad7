"""A chat format: the one owner of how a conversation becomes text.

Training, GGUF metadata, the Modelfile and the checks all take it from the same object.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypedDict

from pipeline.assets import asset
from pipeline.errors import RecipeError


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


Conversation = Sequence[Message]

_CONTROL = re.compile(r"<\|(?=[A-Za-z0-9_]+\|>)")
"""Where the text of a control token of Llama 3 begins, reserved ones too."""


@dataclass(frozen=True)
class Control:
    """A control token, by its name in the tokenizer."""

    token: str


@dataclass(frozen=True)
class Text:
    """All the text between two control tokens: encoded as one piece, never parsed for specials."""

    text: str


Piece = Control | Text


@dataclass(frozen=True)
class ChatFormat:
    """Llama 3 headers around turns, `<think>` around the reasoning.

    The target text is `<think>\\n` + reasoning + `\\n</think>\\n\\n` + answer + end of turn.
    Content is stripped, and the reasoning of earlier turns is dropped.
    """

    name: str
    bos: str
    start_header: str
    end_header: str
    end_of_turn: str
    ends: tuple[str, ...]
    """Control tokens that end a reply; training writes `end_of_turn` only."""
    pad: str
    think: str
    end_think: str
    stops: tuple[str, ...]
    """Strings that end a reply, for the Modelfile."""
    note: str
    """What a model loses by this format."""

    @cached_property
    def jinja(self) -> str:
        """Chat template for Transformers and the GGUF.

        It names no tools: Ollama would then take it instead of its own template.
        """
        return asset(f"modelfiles/{self.name}.jinja").read_text(encoding="utf-8").rstrip("\n")

    @cached_property
    def ollama_template(self) -> str:
        """Go template; no newline at its end, which would join the generation prompt."""
        return asset(f"modelfiles/{self.name}.gotmpl").read_text(encoding="utf-8").rstrip("\n")

    @property
    def empty_thinking(self) -> str:
        """Stands before an answer that is to come without thinking."""
        return f"{self.think}\n\n{self.end_think}\n\n"

    def fingerprint(self) -> dict[str, str]:
        """Name and sha256 of everything that the format means."""
        meaning = [self.jinja, self.ollama_template, *self.stops, *self.ends]
        controls = [self.bos, self.start_header, self.end_header, self.end_of_turn, self.pad]
        text = json.dumps([self.name, *controls, self.think, self.end_think, *meaning])
        return {"name": self.name, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    def prompt(self, conversation: Conversation, *, thinking: bool = True) -> Iterator[Piece]:
        """The pieces up to where the model's reply begins.

        Without `thinking`, an empty thinking block is already given. A conversation that ends with
        the assistant's words is gone on with: they begin the reply, stripped, and say themselves
        whether it thinks. What the model then writes is the reply without them.
        """
        turns, begun = self.shown(conversation), "" if thinking else self.empty_thinking
        if turns and turns[-1]["role"] == "assistant":
            begun = turns.pop()["content"]
        yield Control(self.bos)
        for message in turns:
            yield from self._turn(message["role"], message["content"])
        yield from self._header("assistant")
        yield Text(f"\n\n{begun}")

    def target(self, reasoning: str | None, answer: str) -> str:
        """The reply as text, without its end of turn; None gives the answer alone."""
        if reasoning is None:
            return answer.strip()
        return f"{self.think}\n{reasoning.strip()}\n{self.end_think}\n\n{answer.strip()}"

    def render(self, conversation: Conversation, *, thinking: bool = True) -> str:
        """The generation prompt as text, as the Jinja template gives it."""
        pieces = self.prompt(conversation, thinking=thinking)
        return "".join(p.token if isinstance(p, Control) else p.text for p in pieces)

    def neutral(self, text: str) -> str:
        """The text with a space in what spells a control token: `<| eot_id|>`.

        Servers that are sent text, not ids, would read it as that token.
        """
        return _CONTROL.sub("<| ", text)

    def shown(self, conversation: Conversation) -> list[Message]:
        """The conversation with each content as `prompt` shows it.

        Contents are stripped; of an earlier reply stands its answer only, a prefill stands whole.
        """
        last = len(conversation) - 1
        shown: list[Message] = []
        for place, message in enumerate(conversation):
            content = message["content"]
            if message["role"] == "assistant" and place < last:
                content = content.rsplit(self.end_think, 1)[-1]
            shown.append({"role": message["role"], "content": content.strip()})
        return shown

    def _turn(self, role: str, content: str) -> Iterator[Piece]:
        yield from self._header(role)
        yield Text(f"\n\n{content}")
        yield Control(self.end_of_turn)

    def _header(self, role: str) -> Iterator[Piece]:
        yield Control(self.start_header)
        yield Text(role)
        yield Control(self.end_header)


LLAMA32_REASONING = ChatFormat(
    name="llama3.2-reasoning",
    bos="<|begin_of_text|>",
    start_header="<|start_header_id|>",
    end_header="<|end_header_id|>",
    end_of_turn="<|eot_id|>",
    ends=("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
    pad="<|finetune_right_pad_id|>",
    think="<think>",
    end_think="</think>",
    stops=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    note="The model thinks before it answers and loses Llama's own tool calling.",
)

ASSUMED = LLAMA32_REASONING
"""By whose tags the replies of a model are read of which nothing but its file or name is known."""

FORMATS = {format.name: format for format in (LLAMA32_REASONING,)}


def chat_format(name: str) -> ChatFormat:
    """The format of that name. Raises RecipeError where there is none."""
    if name not in FORMATS:
        raise RecipeError(f"Unknown chat format {name}.", f"There is: {', '.join(FORMATS)}")
    return FORMATS[name]


def neutral_conversation(conversation: Conversation, format: ChatFormat) -> list[Message]:
    """The conversation as a server must get it that renders and then parses control tokens.

    Contents are as `ChatFormat.shown` gives them, which Ollama's template leaves to its client, and
    text that spells a control token is made harmless.
    """
    return [
        Message(role=message["role"], content=format.neutral(message["content"]))
        for message in format.shown(conversation)
    ]


def render_jinja(template: str, conversation: Conversation, **variables: Any) -> str:
    """Render a chat template as Transformers does: sandboxed, blocks trimmed.

    Variables: `bos_token`, `add_generation_prompt`, `enable_thinking`.
    """
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=list(conversation), **variables)
