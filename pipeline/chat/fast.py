"""Encoders of text that are faster than tokenizers, for where they give the same ids.

Both are for text in which nothing is a control token, and for tokenizers that `proof` takes.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tiktoken import Encoding

Backend = Literal["tiktoken", "pieces", "tokenizers"]
"""What encodes texts: tiktoken; tokenizers' own model on each different piece once; tokenizers."""

CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LINES = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
_SPACES = r"\s+(?!\S)|\s+"

LLAMA3_SPLIT = f"{_LINES}|{_SPACES}"
"""How Llama 3 cuts text into pieces: the regex of its tokenizer.json."""

GROUPED = f"(?:{_LINES})|{_SPACES}"
"""The same alternatives in the same order. All without lookahead stand in one group, which
tiktoken's engine hands to the regex crate whole: half as fast again (measured)."""

COMMON = (
    "\x00-\u052f\u0590-\u06ff\u0900-\u097f\u0e00-\u0e7f\u1d00-\u208e\u2090-\u209c\u20a0-\u2bff"
    "\u3000-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\ufe00-\ufe0f\uff00-\uffef"
    "\U0001d400-\U0001d6a5\U0001d6a8-\U0001d7ff\U0001f000-\U0001faff"
)
"""Characters that `pieces` takes, as in a regex: Latin, Greek, Cyrillic, Hebrew, Arabic, Hindi,
Thai, Chinese, Japanese, Korean, mathematics, emoji. Of letters as new as Unicode 17's the package
`regex` (2026.11) knows more than tokenizers (0.23)."""

_LONGEST = 400_000
"""Characters. tiktoken's engine takes a step for each of a run of spaces and panics at 1,000,000
of them; what is longer than any context goes to tokenizers, which has no such limit."""

_MOST_PIECES = 1 << 17
"""Pieces remembered, then all are forgotten: some 40 MB of English, more of Chinese, where a piece
may be a clause. English has fewer common ones."""


class FastText:
    """Encodes text by tiktoken."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        bytes_of = {ord(character): byte for character, byte in alphabet().items()}
        ranks = {
            token.translate(bytes_of).encode("latin-1"): number
            for token, number in vocabulary.items()
        }
        self._encoding = encoding(GROUPED, ranks)

    def ids(self, text: str) -> list[int] | None:
        """None for a text that is too long for tiktoken, or that is no Unicode text."""
        if len(text) > _LONGEST or not _encodes(text):
            return None
        return self._encoding.encode_ordinary(text)


class PieceText:
    """Encodes text by cutting it with `regex` and encoding each different piece once.

    A piece is cut out of itself whole: what the split takes at a place depends on nothing behind
    it but for `(?!\\S)`, which decides between two alternatives of one length.
    """

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        import regex

        self._cut = regex.compile(LLAMA3_SPLIT).findall
        self._uncommon = re.compile(f"[^{COMMON}]").search
        self._known = _Known(encode)

    def ids(self, text: str) -> list[int] | None:
        """None for a text that is too long, or that has a character outside COMMON."""
        if len(text) > _LONGEST or self._uncommon(text):
            return None
        if len(self._known) > _MOST_PIECES:
            self._known.clear()
        return list(chain.from_iterable(map(self._known.__getitem__, self._cut(text))))


class _Known(dict[str, list[int]]):
    """Ids by piece, encoded when first asked for."""

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self._encode = encode

    def __missing__(self, piece: str) -> list[int]:
        ids = self[piece] = self._encode(piece)
        return ids


def encoding(regex: str, ranks: dict[bytes, int]) -> "Encoding":
    """tiktoken with this split and these tokens, and no control token."""
    from tiktoken import Encoding

    return Encoding("pipe", pat_str=regex, mergeable_ranks=ranks, special_tokens={})


def _encodes(text: str) -> bool:
    """False for lone surrogates, which tiktoken replaces in silence."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@cache
def alphabet() -> dict[str, int]:
    """Character -> the byte that it stands for in tokenizer.json: GPT-2's `bytes_to_unicode`."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = sorted(set(range(256)).difference(shown))
    return {chr(byte): byte for byte in shown} | {
        chr(0x100 + place): byte for place, byte in enumerate(hidden)
    }
