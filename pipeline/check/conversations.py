"""The conversations that every renderer is asked to render."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.chat import ChatFormat, Conversation, Message, neutral_conversation

_SYSTEM = "You are a helpful assistant."
_QUESTION = "How many is 12 and 30?"
_CODE = "Why?\r\n\r\n```c\r\nprintf(\"%d\\n\", '\\\\');\t// {{ x }} {% y %} <b>&amp;</b>\r\n```"
_UNICODE = "Grüße, 12 nai\u0308ve 🦙👩\u200d🚀 and ٣٠, 合計は？ e\u0301\u00a0\u200b"
_THOUGHT = "<think>\nTwelve and thirty.\n</think>\n\nIt is 42."


def _turns(*contents: str, system: str | None = None) -> list[Message]:
    """User and assistant in turn, the user first."""
    messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    for number, content in enumerate(contents):
        messages.append({"role": "assistant" if number % 2 else "user", "content": content})
    return messages


_CONVERSATIONS: dict[str, Conversation] = {
    "no system": _turns(_QUESTION),
    "system": _turns(_QUESTION, system=_SYSTEM),
    "multi-turn": _turns(_QUESTION, "It is 42.", "And 5 more?"),
    "system and multi-turn": _turns(
        _QUESTION, "It is 42.", "And 5 more?", "47.", "Thanks.", system=_SYSTEM
    ),
    "earlier thinking": _turns(_QUESTION, _THOUGHT, "And 5 more?"),
    "Unicode": _turns(_UNICODE, "合計は42🦙", _UNICODE, system=_UNICODE),
    "outer whitespace": _turns(
        f"\n\n  {_QUESTION}\n \t", "  It is 42.\n\n", " 5 more? ", system=f" {_SYSTEM}\n"
    ),
    "inner whitespace": _turns("a  b\n\n\n   c\n\td \n e", system="1\n\n2"),
    "code, CRLF and quotes": _turns(_CODE, _CODE, _CODE),
    "one mark": _turns("?"),
    "nothing but a space": _turns(" "),
    "numbers": _turns("1234567890 x2 = 3.50; 10^-7, 1/3, 1,000,000 or 0x1F?"),
    "long": _turns(" ".join(f"Sum {n} and {n * 7 % 50}." for n in range(24)), system=_SYSTEM),
    "prefill": _turns(_QUESTION, "It is"),
    "prefill in thinking": _turns(_QUESTION, "<think>\nTwelve and", system=_SYSTEM),
}


@dataclass(frozen=True)
class Case:
    """One conversation as it is asked, with thinking or without."""

    name: str
    conversation: Conversation
    thinking: bool

    @property
    def prefill(self) -> bool:
        """True where the reply is begun already."""
        return self.conversation[-1]["role"] == "assistant"

    def __str__(self) -> str:
        return f"{self.name}, thinking {'on' if self.thinking else 'off'}"


def cases(*, thinks: bool) -> Iterator[Case]:
    """Every conversation with thinking on and off; a prefill says by itself whether it thinks.

    A model that does not think is asked without.
    """
    for name, conversation in _CONVERSATIONS.items():
        if thinks:
            yield Case(name, conversation, True)
        if not thinks or conversation[-1]["role"] != "assistant":
            yield Case(name, conversation, False)


def as_sent(conversation: Conversation, format: ChatFormat | None) -> list[Message]:
    """The conversation as our own clients send it to a server, whose template may trim nothing.

    A format that is not ours has content stripped, and nothing else.
    """
    if format is not None:
        return neutral_conversation(conversation, format)
    return [Message(role=each["role"], content=each["content"].strip()) for each in conversation]
