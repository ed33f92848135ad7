"""Where faster encoders are proven to give the ids of a tokenizer."""

import json
import re
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise, product
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from pipeline.chat.fast import (
    COMMON,
    CONTRACTION,
    GROUPED,
    LLAMA3_SPLIT,
    Backend,
    alphabet,
    encoding,
)
from pipeline.errors import PipeError

_PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {
            "type": "Split",
            "pattern": {"Regex": LLAMA3_SPLIT},
            "behavior": "Isolated",
            "invert": False,
        },
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    ],
}

_QUESTIONS = (r"\p{L}", r"\p{N}", r"\s", CONTRACTION[:-1] + "|re|ve|ll|s|t|r|e|v|m|l|d)")
"""What the regex asks of a character; the last also finds one that stands for two letters."""


@dataclass(frozen=True)
class Proof:
    """The fastest encoder that gives the tokenizer's own ids for every text."""

    backend: Backend
    reason: str
    """Why it is not a faster one; empty for tiktoken."""


def fastest(tokenizer_json: Path) -> Proof:
    """The first of tiktoken and `pieces` that is proven for the tokenizer, else tokenizers.

    Takes a file that Encoder takes; raises PipeError where it cannot be read. About 3 s for
    Llama 3's, most of it for the regex engines, which are compared once a process.
    """
    why_not_tiktoken = unproven(tokenizer_json, "tiktoken")
    if not why_not_tiktoken:
        return Proof("tiktoken", "")
    if unproven(tokenizer_json, "pieces"):
        return Proof("tokenizers", why_not_tiktoken)
    return Proof("pieces", why_not_tiktoken)


def unproven(tokenizer_json: Path, backend: Backend) -> str:
    """Why the backend may give a text other ids than the tokenizer itself; empty where it cannot.

    All cut text into pieces with a regex. tokenizers and tiktoken take a piece that is a token as
    it is (`ignore_merges`; tiktoken always does), and in any other merge two neighbours, those of
    the lowest rank first, of equal ranks the leftmost, until nothing merges; `pieces` asks
    tokenizers for each piece. Steps 1 and 3 prove `pieces`, all three tiktoken.

    1. The tokenizer does this and nothing more: no normalizer, dropout, unknown token or affix;
       every byte is a token; the regex is Llama 3's; no added token shares an id with the
       vocabulary, so none comes out of a text.
    2. The same neighbours merge in the same order. tokenizers merges the pairs of its list, by
       place; tiktoken any pair that makes a token, by the token's id. So the list must hold every
       split of every token into two tokens, ordered by the ids of what they make. Pairs that make
       the same token t may stand in any order, for only one of them is ever met: what was merged
       between two cuts is what merging the bytes between them alone begins with, and each merge
       leaves one part less. So wherever the bytes of t stand as two parts, these are the two that
       t alone comes to on its way.
    3. The two regex engines cut alike. Of a character the regex asks only whether it is a letter,
       a number, whitespace, a line's end or one of the few it names, case folded in contractions.
       The engines are held against each other on these questions for every Unicode scalar
       value that the encoder takes, and on their cuts of all short strings of such characters.

    Raises as `fastest` does.
    """
    if backend == "tokenizers":
        return ""
    description = json.loads(read_tokenizer(tokenizer_json))
    if backend == "pieces":
        return _structure(description) or _engine(_Regex())
    return _structure(description) or _merges(description["model"]) or _engine(_Tiktoken())


class _Engine(Protocol):
    """A regex engine as an encoder uses it."""

    characters: str
    """Those that it is asked about, as in a regex."""

    def taken(self, question: str, text: str) -> str:
        """All parts of `text` that the regex matches, joined."""

    def cutter(self, numbers: dict[str, int]) -> Callable[[str], list[int]]:
        """Llama 3's split of a text, as numbers of the pieces."""


@dataclass(frozen=True)
class _Tiktoken:
    characters: str = r"\s\S"

    def taken(self, question: str, text: str) -> str:
        # tiktoken leaves out what stands between
        ranks = {bytes([byte]): byte for byte in range(256)}
        return bytes(encoding(f"{question}+", ranks).encode_ordinary(text)).decode()

    def cutter(self, numbers: dict[str, int]) -> Callable[[str], list[int]]:
        ranks = {text.encode(): number for text, number in numbers.items()}
        return encoding(GROUPED, ranks).encode_ordinary


@dataclass(frozen=True)
class _Regex:
    characters: str = COMMON

    def taken(self, question: str, text: str) -> str:
        import regex

        return "".join(regex.findall(f"{question}+", text))

    def cutter(self, numbers: dict[str, int]) -> Callable[[str], list[int]]:
        import regex

        cut = regex.compile(LLAMA3_SPLIT).findall
        return lambda text: [numbers[piece] for piece in cut(text)]


def read_tokenizer(tokenizer_json: Path) -> str:
    """Text of a tokenizer.json. Raises PipeError where it cannot be read."""
    try:
        return tokenizer_json.read_text(encoding="utf-8")
    except OSError as error:
        raise PipeError(f"{tokenizer_json} cannot be read: {error}", "Check model.base.") from None


def _structure(description: Mapping[str, Any]) -> str:
    """Step 1: what the tokenizer does beyond cutting and merging, or empty."""
    model = description["model"]
    if model.get("type") != "BPE":
        return "its model is not BPE"
    if not model.get("ignore_merges"):
        return "it merges pieces that are tokens already"
    affixes = ("continuing_subword_prefix", "end_of_word_suffix")
    for key in ("dropout", "unk_token", *affixes, "fuse_unk", "byte_fallback"):
        if model.get(key):
            return f"its model sets {key}"
    if description.get("normalizer") is not None:
        return "it normalizes text"
    if _splitting(description.get("pre_tokenizer")) != _PRE_TOKENIZER:
        return "it does not cut text as Llama 3 does"
    return _vocabulary(model["vocab"], description.get("added_tokens", ()))


def _vocabulary(vocabulary: Mapping[str, int], added: Iterable[Mapping[str, Any]]) -> str:
    bytes_ = alphabet().keys()
    if not bytes_ <= vocabulary.keys() or not bytes_ >= set().union(*vocabulary):
        return "its vocabulary is not one of bytes"
    ids = set(vocabulary.values())
    if len(ids) < len(vocabulary):
        return "two of its tokens have one id"
    inside = [token["content"] for token in added if token["id"] in ids]
    return f"its vocabulary holds the added token {inside[0]}" if inside else ""


def _splitting(pre_tokenizer: Any) -> Any:
    """The pre-tokenizer without `trim_offsets`, which moves no id."""
    text = json.dumps(pre_tokenizer)
    return json.loads(
        text, object_hook=lambda part: {k: v for k, v in part.items() if k != "trim_offsets"}
    )


def _merges(model: Mapping[str, Any]) -> str:
    """Step 2: what is wrong with the list of merges, or empty."""
    vocabulary: dict[str, int] = model["vocab"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    made = (vocabulary[merge.replace(" ", "")] for merge in merges)
    if any(later < earlier for earlier, later in pairwise(made)):
        return "its merges are not in the order of its ids"
    splits = sum(
        token[:cut] in vocabulary and token[cut:] in vocabulary
        for token in vocabulary
        for cut in range(1, len(token))
    )
    lacking = splits - len(set(merges))
    return f"its merges lack {lacking} of {splits} splits of its tokens" if lacking else ""


@cache
def _engine(engine: _Engine) -> str:
    """Step 3: where the engine differs from tokenizers' own, or empty."""
    scalars = array("I", chain(range(0xD800), range(0xE000, 0x110000)))
    every = scalars.tobytes().decode(f"utf-32-{sys.byteorder[0]}e")
    return _compared(engine, "".join(re.findall(f"[{engine.characters}]", every)))


def _compared(engine: _Engine, every: str) -> str:
    """The same for the characters given, each once."""
    taken = [engine.taken(question, every) for question in _QUESTIONS]
    alike = _one_piece_each(taken[:-1], every) and _taken_alone(_QUESTIONS[-1], taken[-1], every)
    return _short_strings(engine, taken[-1]) if alike else _unlike(taken, every)


def _one_piece_each(classes: Sequence[str], every: str) -> bool:
    """Whether tokenizers, too, sees letters, numbers, whitespace and the rest as one run each."""
    runs = "|".join(f"{question}+" for question in _QUESTIONS[:-1])
    classed = set().union(*classes)
    rest = "".join(character for character in every if character not in classed)
    anchored = ["a" + classes[0], "1" + classes[1], " " + classes[2], "!" + rest]
    return list(map(len, _cut(runs, "isolated", anchored))) == [1, 1, 1, 1]


def _taken_alone(question: str, taken: str, every: str) -> bool:
    """Whether tokenizers finds `question` in all of `taken` and in no other character."""
    rest = "!" + "".join(character for character in every if character not in taken)
    return list(map(len, _cut(question, "removed", [taken, rest]))) == [0, 1]


def _unlike(taken: Sequence[str], every: str) -> str:
    """The characters that the engines answer differently for; slow, for the message alone."""
    for question, characters in zip(_QUESTIONS, taken, strict=True):
        cut = pre_tokenizers.Split(Regex(question), "removed", invert=True)
        own = {character for character, _ in cut.pre_tokenize_str(every)}
        if points := [f"U+{ord(character):04X}" for character in sorted(own ^ set(characters))]:
            return f"the regex engines differ in {question}: {' '.join(points[:8])}"
    return "the regex engines differ"


def _short_strings(engine: _Engine, folded: str) -> str:
    """The first short string that the engines cut differently, in words, or empty.

    Each string is a token of its own here, so that ids tell where it was cut.
    """
    alphabets = (("as1 \t\n'!", 5), ("a1 \r\n", 5), ("'" + folded, 3))
    texts = {
        "".join(text)
        for alphabet, longest in alphabets
        for length in range(1, longest + 1)
        for text in product(alphabet, repeat=length)
    }
    numbers = {text: number for number, text in enumerate(sorted(texts))}
    cut = engine.cutter(numbers)
    own = _cut(LLAMA3_SPLIT, "isolated", list(numbers), numbers)
    for text, ids in zip(numbers, own, strict=True):
        if cut(text) != ids:
            return f"the regex engines cut {text!r} differently"
    return ""


def _cut(
    regex: str, behavior: str, texts: list[str], numbers: dict[str, int] | None = None
) -> list[list[int]]:
    """The pieces that tokenizers cuts each text into, by number; 0 for those without one."""
    tokenizer = Tokenizer(models.WordLevel(numbers or {"": 0}, unk_token=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(regex), behavior)
    return [encoded.ids for encoded in tokenizer.encode_batch_fast(texts)]
