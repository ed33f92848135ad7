"""Fingerprints of a row: what tells equal, similar and contaminated rows without their text.

All of them are the same on every machine, whatever the process and PYTHONHASHSEED.
"""

import re
import unicodedata
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datasketch import MinHash

GRAM = 8
"""Words in a gram: open-r1's decontamination (scripts/decontaminate.py) and PaLM's."""

SHINGLE = 5
"""Tokens in a shingle of the MinHash signature."""

PERMUTATIONS = 128
"""Length of a signature: an estimated Jaccard similarity J has the standard error
sqrt(J (1 - J) / 128), which is 0.03 at 0.85 (Broder 1997)."""

_SEED = 1
"""Of the permutations: another one makes all signatures others."""

_BLOCK = 4096
"""Shingles permuted at a time: 2 MiB."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
_IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_OWN = _UNSPACED + _IDEOGRAPHS
"""Thai, Lao, Burmese, Khmer, kana and ideographs: written without spaces."""

_MARKS = "\u0300-\u036f\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
r"""Accents and vowel signs, of which \w leaves out many."""

_TOKEN = re.compile(rf"[^\W{_OWN}]+(?:[{_MARKS}][^\W{_OWN}]*)*|[{_OWN}]|[^\w\s]")
_SIMPLE = re.compile(r"\w+|[^\w\s]")
_ASCII = re.compile(rb"[a-z0-9_]+|[^a-z0-9_\s]")
_NOT_SIMPLE = re.compile(f"[{_OWN}{_MARKS}]")
"""Without one of these characters the three patterns agree; the other two take half the time."""

_EXPONENTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁱⁿ", "0123456789+-=()in", strict=True))
_INDICES = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎", "0123456789+-=()", strict=True))
_SHIFTED = {c: f"^{to}" for c, to in _EXPONENTS.items()} | {
    c: f"_{to}" for c, to in _INDICES.items()
}
_SHIFT = re.compile(f"[{''.join(_SHIFTED)}]")
"""NFKC alone would make 3² into 32."""

_LAST = ".?:;,…。、 "
"""Dropped from a question's end; `!` stays, which may be a factorial."""

_LOWER = bytes(range(256)).lower()
_SPACES = b" \t\n\v\f\r"


class Fingerprint(NamedTuple):
    """A question's fingerprints, from one pass over its text."""

    key: int
    grams: NDArray[np.uint64]
    signature: NDArray[np.uint32]


def fingerprint(question: str) -> Fingerprint:
    """`question_key`, `word_grams` and `signature` at the price of one normalisation."""
    text = _normalised(question)
    hashes, is_word = _tokens(text)
    grams = _distinct(_windows(hashes[is_word], GRAM))
    return Fingerprint(_key(text), grams, _signature(hashes))


def question_key(text: str) -> int:
    """64 bits (XXH3) that are equal for questions that differ only in case, spacing and form.

    Unicode is brought to NFKC and case-folded, white space collapsed, a final full stop, question
    mark, colon or comma dropped. Operators, digits, exponents and indices count.
    """
    return _key(_normalised(text))


def row_key(system: str | None, question: str, reasoning: str | None, answer: str) -> int:
    """64 bits (XXH3) of a whole row; its system message and question as in `question_key`.

    In reasoning and answer, white space and the case of ASCII letters do not count. No text is
    the same as an empty one.
    """
    asked = [_encoded(_normalised(text or "")) for text in (system, question)]
    told = [_encoded(text or "").translate(_LOWER, _SPACES) for text in (reasoning, answer)]
    return xxhash.xxh3_64_intdigest(b"\0".join(asked + told))


def word_grams(text: str, n: int = GRAM) -> NDArray[np.uint64]:
    """Hashes of all runs of n words, uint64, ascending, each once; none of fewer than n words.

    A word is a run of letters, digits and underscores, case-folded; punctuation and symbols do
    not count; in a script written without spaces every character is a word.
    """
    hashes, is_word = _tokens(_normalised(text))
    return _distinct(_windows(hashes[is_word], n))


def signature(text: str) -> NDArray[np.uint32]:
    """MinHash of the runs of SHINGLE tokens, uint32 [PERMUTATIONS] (datasketch, affine32).

    Every symbol is a token too. A text of fewer tokens has one run, of all of them.
    """
    return _signature(_tokens(_normalised(text))[0])


def _normalised(text: str) -> str:
    if not text.isascii():
        # a fold may decompose, so it stands between the two (Unicode, D145)
        text = _SHIFT.sub(lambda found: _SHIFTED[found[0]], text)
        text = unicodedata.normalize("NFKC", text).casefold()
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split()).rstrip(_LAST)


def _encoded(text: str) -> bytes:
    """UTF-8; a lone surrogate, which has none, must not stop a benchmark's question."""
    return text.encode("utf-8", "surrogatepass")


def _key(text: str) -> int:
    return xxhash.xxh3_64_intdigest(_encoded(text))


@lru_cache(maxsize=1 << 16)
def _token(token: bytes) -> int:
    """A token's hash, its lowest bit 1 for a word and 0 for a symbol."""
    first = token.decode("utf-8", "surrogatepass")[0]
    return xxhash.xxh3_64_intdigest(token) & ~1 | (first == "_" or first.isalnum())


def _tokens(text: str) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Hashes of a normalised text's tokens in order, and which of them are words."""
    if text.isascii():
        found = _ASCII.findall(text.encode())
    else:
        pattern = _TOKEN if _NOT_SIMPLE.search(text) else _SIMPLE
        found = _encoded(" ".join(pattern.findall(text))).split()
    hashes = np.fromiter(map(_token, found), np.uint64, len(found))
    return hashes, (hashes & np.uint64(1)).astype(np.bool_)


def _windows(hashes: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """A hash of every n neighbours, uint64 [max(0, len(hashes) - n + 1)]; order counts."""
    if not 0 < n <= len(hashes):
        return np.empty(0, np.uint64)
    return mixed(np.convolve(hashes, multipliers(n)[::-1], "valid").astype(np.uint64, copy=False))


def _distinct(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The values ascending, each once; np.unique takes six times as long on so few."""
    values.sort()
    return values[np.append(np.True_, values[1:] != values[:-1])] if len(values) else values


def _signature(hashes: NDArray[np.uint64]) -> NDArray[np.uint32]:
    runs = _windows(hashes, min(SHINGLE, len(hashes))) >> np.uint64(32)
    minhash = _minhash()
    minhash.clear()
    for start in range(0, len(runs), _BLOCK):
        # an array for one value: each would be hashed by itself, at twice the price
        minhash.update_batch([runs[start : start + _BLOCK]])
    return np.asarray(minhash.digest(), np.uint32)


@cache
def _minhash() -> "MinHash":
    """One for all signatures of a process: making its permutations takes as long as ten."""
    from datasketch import MinHash

    return MinHash(PERMUTATIONS, _SEED, hashfunc=_as_it_is)


def _as_it_is(value: Any) -> Any:
    """Shingles come hashed."""
    return value


@cache
def multipliers(n: int) -> NDArray[np.uint64]:
    """n odd numbers for the positions of a multilinear hash modulo 2^64."""
    return mixed(np.arange(1, n + 1, dtype=np.uint64)) | np.uint64(1)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """MurmurHash3's 64-bit finalizer (Appleby), a bijection that spreads every bit."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))
