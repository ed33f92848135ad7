"""Conversations and rows to token ids and supervised spans."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from pipeline.chat.cutting import cut_before
from pipeline.chat.fast import COMMON, Backend, FastText, PieceText
from pipeline.chat.format import ChatFormat
from pipeline.chat.formats import misfit
from pipeline.chat.pieces import Control, Conversation, Message, Piece, Tag, Text, joined
from pipeline.chat.proof import read_tokenizer
from pipeline.errors import PipeError

_BATTERY = (
    "It's WE'LL 'ſ isn't  12345 x2 = 3.50\r\n\r\n\tif a[i] != b:\n        pass  \n \n"
    "<think>\n</think>\n\n<|eot_id|> naïve e\u0301 中文。日本語 ١٢٣ 🙂👩\u200d🚀 "
    "\u00a0\u2028\ufeff\0 \x85\x1c end   "
)
"""Every kind of piece that the regex cuts."""


class Exchange(NamedTuple):
    """One question and its reply; `reasoning` None is a reply without thinking."""

    system: str | None
    question: str
    reasoning: str | None
    answer: str
    start: str | None = None
    """Text that the reply begins with, given as a prefill and not learned. It says that the reply
    does not think: no empty thinking block is given beside it."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one training example; `target_start` is the first supervised position.

    Supervised are exactly ids[target_start:]: the reply, without the start that was given, and its
    end-of-turn token.
    """

    ids: tuple[int, ...]
    target_start: int

    def labels(self, ignore: int = -100) -> list[int]:
        """ids with `ignore` wherever nothing is learned."""
        return [ignore] * self.target_start + list(self.ids[self.target_start :])


class Encoder:
    """Encodes by inserting control tokens as ids; content can never become one.

    So are the tags around the thinking, where the tokenizer has tokens for them, as Qwen3's has.

    `backend` encodes the texts: give one that `fastest` has proven for this tokenizer. It is still
    held against tokenizers on one text, and tokenizers encodes if they differ.
    Raises PipeError when the tokenizer lacks a control token of the format.
    """

    def __init__(
        self, tokenizer_json: Path, format: ChatFormat, *, backend: Backend = "tokenizers"
    ) -> None:
        self.format = format
        self._whole = Tokenizer.from_str(read_tokenizer(tokenizer_json))
        self._whole.no_truncation()
        self._whole.no_padding()
        self._content = _without_added_tokens(self._whole)
        self._fast = self._checked(backend)
        self.backend: Backend = backend if self._fast else "tokenizers"
        """What encodes the texts."""
        added = self._whole.get_added_tokens_decoder()
        tokens = {token.content for token in added.values()}
        tags = [tag for tag in (format.think, format.end_think) if tag in tokens]
        self._control = {name: self._id_of(name) for name in (*format.needs, *tags)}
        self._prefixes: dict[tuple[bool, str | None], list[int]] = {}

    @cached_property
    def end_of_turn_id(self) -> int:
        return self._control[self.format.end_of_turn]

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Every id that ends a reply, as llama.cpp knows them by name."""
        ids = map(self._whole.token_to_id, self.format.ends)
        return frozenset(number for number in ids if number is not None)

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Every id that stands for a control token, also those that the format does not use."""
        added = self._whole.get_added_tokens_decoder()
        return frozenset(number for number, token in added.items() if token.special)

    @cached_property
    def tag_ids(self) -> frozenset[int]:
        """The ids of the thinking's tags; empty where they are text to the tokenizer."""
        tags = {self.format.think, self.format.end_think}
        return frozenset(self._control[tag] for tag in tags & self._control.keys())

    @cached_property
    def pad_id(self) -> int:
        """Never the end of turn: a model that learns padding forgets to stop."""
        return self._id_of(self.format.pad)

    def prompt(self, conversation: Conversation, *, thinking: bool = True) -> list[int]:
        """Ids of the generation prompt, BOS first; it ends with a prefill where there is one."""
        pieces = self._joined(self.format.prompt(conversation, thinking=thinking))
        return list(chain.from_iterable(self._ids_of(pieces)))

    def example(
        self, question: str, reasoning: str | None, answer: str, *, system: str | None = None
    ) -> Encoded:
        """One training example; without reasoning the empty thinking block is part of the prompt.

        Raises ValueError when the reply's first token would join the prompt's last.
        """
        (encoded,) = self.examples([Exchange(system, question, reasoning, answer)])
        if encoded is None:
            raise ValueError("the reply does not begin at a token boundary")
        return encoded

    def examples(self, rows: Sequence[Exchange]) -> list[Encoded | None]:
        """The training example of each row; None where `example` raises ValueError.

        Many rows at once are faster than one by one.
        """
        conversations = [self._pieces(row) for row in rows]
        ids = self._ids_of([piece for pieces, _ in conversations for piece in pieces])
        return [
            self._example([next(ids) for _ in pieces], begins, row)
            for row, (pieces, begins) in zip(rows, conversations, strict=True)
        ]

    def whole(self, text: str) -> list[int]:
        """Ids of rendered text with its control tokens parsed, as llama.cpp would read it."""
        return list(self._whole.encode(text, add_special_tokens=False).ids)

    def content_ids(self, text: str) -> list[int]:
        """Ids of text in which nothing is a control token."""
        (ids,) = self._texts([text])
        return ids

    def text_of(self, ids: Iterable[int]) -> str:
        """Text of ids, control tokens spelled out."""
        return str(self._whole.decode(list(ids), skip_special_tokens=False))

    def reply_of(self, ids: Iterable[int]) -> str:
        """Text of ids without control tokens."""
        return str(self._whole.decode(list(ids), skip_special_tokens=True))

    def shortened(self, reasoning: str, excess: int) -> str:
        """The reasoning without its end, so that the reply has at least `excess` tokens fewer.

        Cut at the end of a line, else of a sentence, where one is near; "" where nothing is left.
        """
        longest = self._thinking_length(reasoning) - excess
        text = reasoning.strip()
        while text and (excess := self._thinking_length(text) - longest) > 0:
            text = self._without_end(text, excess)
        return text

    def beginning(self, text: str, most: int) -> str:
        """The text's beginning of at most `most` tokens, cut as `shortened` cuts."""
        kept = text
        while (excess := len(self.content_ids(kept)) - most) > 0:
            kept = self._without_end(kept, excess)
        return kept

    def _thinking_length(self, reasoning: str) -> int:
        """Tokens of the thinking block; what follows it begins with a token of its own."""
        return sum(map(len, self._ids_of(self._joined(self.format.reply(reasoning, "")))))

    def _without_end(self, text: str, count: int) -> str:
        """At least `count` tokens less, which need not hold once what remains is encoded anew."""
        ids = self.content_ids(text)
        if count >= len(ids):
            return ""
        dropped = sum(len(str(self._content.id_to_token(number))) for number in ids[-count:])
        kept = text.encode()[:-dropped].decode(errors="ignore")
        return text[: cut_before(text, len(kept))].rstrip()

    def _joined(self, pieces: Iterable[Piece]) -> list[Piece]:
        """With each tag a token where there is one for it, else text like that around it."""
        return list(joined(map(self._as_token, pieces)))

    def _as_token(self, piece: Piece) -> Piece:
        if not isinstance(piece, Tag):
            return piece
        return Control(piece.text) if piece.text in self._control else Text(piece.text)

    def _pieces(self, row: Exchange) -> tuple[list[Piece], int]:
        """The example's pieces, and the place of the one in which the reply begins."""
        messages: list[Message] = [{"role": "user", "content": row.question}]
        if row.system:
            messages.insert(0, {"role": "system", "content": row.system})
        if row.start:
            messages.append({"role": "assistant", "content": row.start})
        prompt = self.format.prompt(messages, thinking=row.reasoning is not None)
        *head, last = self._joined(prompt)
        reply = self.format.reply(row.reasoning, row.answer)
        return [*head, *self._joined([last, *reply])], len(head)

    def _example(
        self, pieces: Sequence[Sequence[int]], begins: int, row: Exchange
    ) -> Encoded | None:
        """`pieces[begins]` is the prompt's last text, with what of the reply is joined to it."""
        prefix = self._prefix(row.reasoning is not None, row.start)
        if pieces[begins][: len(prefix)] != prefix:
            return None
        start = sum(map(len, pieces[:begins])) + len(prefix)
        return Encoded((*chain.from_iterable(pieces), self.end_of_turn_id), start)

    def _prefix(self, thinking: bool, start: str | None) -> list[int]:
        """Ids of the prompt's text after its last token that is none; encoded once."""
        if (thinking, start) not in self._prefixes:
            given: list[Message] = [{"role": "assistant", "content": start}] if start else []
            pieces = self._joined(self.format.prompt(given, thinking=thinking))
            self._prefixes[thinking, start] = list(self._ids_of(pieces))[-1]
        return self._prefixes[thinking, start]

    @cached_property
    def _roles(self) -> dict[str, list[int]]:
        """The texts that stand in every row, encoded once."""
        return {role: self.content_ids(role) for role in ("system", "user", "assistant")}

    def _ids_of(self, pieces: Sequence[Piece]) -> Iterator[list[int]]:
        """Ids of each piece; the texts are encoded all in one go."""
        texts = [p.text for p in pieces if isinstance(p, Text) and p.text not in self._roles]
        encoded = iter(self._texts(texts))
        for piece in pieces:
            if isinstance(piece, Control):
                yield [self._control[piece.token]]
            else:
                yield self._roles.get(piece.text) or next(encoded)

    def _texts(self, texts: list[str]) -> list[list[int]]:
        if self._fast is None:
            return self._own(texts)
        fast = map(self._fast.ids, texts)
        return [
            self._own([text])[0] if ids is None else ids
            for text, ids in zip(texts, fast, strict=True)
        ]

    def _own(self, texts: list[str]) -> list[list[int]]:
        """By tokenizers; a single text without its threads, which would hinder a later fork."""
        if len(texts) == 1:
            return [list(self._content.encode(texts[0], add_special_tokens=False).ids)]
        encodings = self._content.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _checked(self, backend: Backend) -> FastText | PieceText | None:
        """The faster encoder, where it gives the same ids for one text."""
        if backend == "tokenizers":
            return None
        fast: FastText | PieceText
        if backend == "tiktoken":
            fast, battery = FastText(self._content.get_vocab(with_added_tokens=False)), _BATTERY
        else:
            fast = PieceText(lambda piece: self._own([piece])[0])
            battery = re.sub(f"[^{COMMON}]", "", _BATTERY)
        return fast if [fast.ids(battery)] == self._own([battery]) else None

    def _id_of(self, name: str) -> int:
        number = self._whole.token_to_id(name)
        if number is None:
            raise misfit(self.format, name, self._whole.get_vocab())
        return int(number)


def _without_added_tokens(whole: Tokenizer) -> Tokenizer:
    """The same tokenizer with nothing to parse specials by: `<|eot_id|>` is seven plain letters.

    Both share one model: that of Llama 3 takes most of a second to read.
    """
    tokenizer = Tokenizer(whole.model)
    tokenizer.normalizer = whole.normalizer
    tokenizer.pre_tokenizer = whole.pre_tokenizer
    added = {token.content for token in whole.get_added_tokens_decoder().values()}
    ids = set(map(tokenizer.token_to_id, added)) - {None}
    for name in added:
        if ids.intersection(tokenizer.encode(name, add_special_tokens=False).ids):
            raise PipeError(f"The tokenizer reads {name} in a text as a control token.")
    return tokenizer
