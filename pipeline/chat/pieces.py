"""Of what a rendered conversation is made: messages in, control tokens, tags and texts out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


Conversation = Sequence[Message]


@dataclass(frozen=True)
class Control:
    """A control token, by its name in the tokenizer."""

    token: str


@dataclass(frozen=True)
class Tag:
    """A tag around the thinking: a token where the tokenizer has one for it, else text."""

    text: str


@dataclass(frozen=True)
class Text:
    """All the text between two tokens: encoded as one piece, never parsed for specials."""

    text: str


Piece = Control | Tag | Text


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces with neighbouring texts as one: encoded apart, they would miss the tokens that
    begin in one and end in the other."""
    held = ""
    for piece in pieces:
        if isinstance(piece, Text):
            held += piece.text
            continue
        if held:
            yield Text(held)
        held = ""
        yield piece
    if held:
        yield Text(held)


def text_of(pieces: Iterable[Piece]) -> str:
    """The pieces as one text, control tokens by their names."""
    return "".join(piece.token if isinstance(piece, Control) else piece.text for piece in pieces)
