"""Conversations and rows to token ids and supervised spans."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from pipeline.chat.format import ChatFormat, Control, Conversation, Message, Piece
from pipeline.errors import PipeError


@dataclass(frozen=True)
class Encoded:
    """Token ids of one training example; `target_start` is the first supervised position.

    Supervised are exactly ids[target_start:]: the reply and its end-of-turn token.
    """

    ids: tuple[int, ...]
    target_start: int

    def labels(self, ignore: int = -100) -> list[int]:
        """ids with `ignore` wherever nothing is learned."""
        return [ignore] * self.target_start + list(self.ids[self.target_start :])


class Encoder:
    """Encodes by inserting control tokens as ids; content can never become one.

    Raises PipeError when the tokenizer lacks a control token of the format.
    """

    def __init__(self, tokenizer_json: Path, format: ChatFormat) -> None:
        self.format = format
        text = _read(tokenizer_json)
        self._whole = Tokenizer.from_str(text)
        self._content = _without_added_tokens(text)
        self._control: dict[str, int] = {}
        for name in (format.bos, format.start_header, format.end_header, format.end_of_turn):
            self._control[name] = self._id_of(name)

    @cached_property
    def end_of_turn_id(self) -> int:
        return self._control[self.format.end_of_turn]

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Every id that ends a reply, as llama.cpp knows them by name."""
        ids = map(self._whole.token_to_id, self.format.ends)
        return frozenset(number for number in ids if number is not None)

    @cached_property
    def pad_id(self) -> int:
        """Never the end of turn: a model that learns padding forgets to stop."""
        return self._id_of(self.format.pad)

    def prompt(self, conversation: Conversation, *, thinking: bool = True) -> list[int]:
        """Ids of the generation prompt, BOS first."""
        return self._encode(self.format.prompt(conversation, thinking=thinking))

    def example(
        self, question: str, reasoning: str | None, answer: str, *, system: str | None = None
    ) -> Encoded:
        """One training example; without reasoning the empty thinking block is part of the prompt.

        Raises ValueError when the reply's first token would join the prompt's last.
        """
        messages: list[Message] = [{"role": "user", "content": question}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        *head, last = self.format.prompt(messages, thinking=reasoning is not None)
        assert not isinstance(last, Control)
        prefix = self._text(last.text)
        reply = self._text(last.text + self.format.target(reasoning, answer))
        if reply[: len(prefix)] != prefix:
            raise ValueError("the reply does not begin at a token boundary")
        before = self._encode(head)
        ids = (*before, *reply, self.end_of_turn_id)
        return Encoded(ids, len(before) + len(prefix))

    def whole(self, text: str) -> list[int]:
        """Ids of rendered text with its control tokens parsed, as llama.cpp would read it."""
        return list(self._whole.encode(text, add_special_tokens=False).ids)

    def content_ids(self, text: str) -> list[int]:
        """Ids of text in which nothing is a control token."""
        return self._text(text)

    def text_of(self, ids: Iterable[int]) -> str:
        """Text of ids, control tokens spelled out."""
        return str(self._whole.decode(list(ids), skip_special_tokens=False))

    def reply_of(self, ids: Iterable[int]) -> str:
        """Text of ids without control tokens."""
        return str(self._whole.decode(list(ids), skip_special_tokens=True))

    def _encode(self, pieces: Iterable[Piece]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, Control):
                ids.append(self._control[piece.token])
            else:
                ids.extend(self._text(piece.text))
        return ids

    def _text(self, text: str) -> list[int]:
        return list(self._content.encode(text, add_special_tokens=False).ids)

    def _id_of(self, name: str) -> int:
        number = self._whole.token_to_id(name)
        if number is None:
            raise PipeError(
                f"The tokenizer has no token {name}, which the format {self.format.name} needs.",
                "Use a Llama 3 base, or another chat.format.",
            )
        return int(number)


def _read(tokenizer_json: Path) -> str:
    try:
        return tokenizer_json.read_text(encoding="utf-8")
    except OSError as error:
        raise PipeError(f"{tokenizer_json} cannot be read: {error}", "Check model.base.") from None


def _without_added_tokens(text: str) -> Tokenizer:
    """The same tokenizer with nothing to parse specials by: `<|eot_id|>` is seven plain letters."""
    description = json.loads(text)
    added = {token["content"] for token in description["added_tokens"]}
    description["added_tokens"] = []
    description["post_processor"] = None
    tokenizer = Tokenizer.from_str(json.dumps(description))
    ids = set(map(tokenizer.token_to_id, added)) - {None}
    for name in added:
        if ids.intersection(tokenizer.encode(name, add_special_tokens=False).ids):
            raise PipeError(f"The tokenizer reads {name} in a text as a control token.")
    return tokenizer
