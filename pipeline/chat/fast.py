"""tiktoken in place of tokenizers, where it is proven to give the same ids."""

import json
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from pipeline.errors import PipeError

if TYPE_CHECKING:
    from tiktoken import Encoding

_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LINES = _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
_SPACES = r"\s+(?!\S)|\s+"

LLAMA3_SPLIT = f"{_LINES}|{_SPACES}"
"""How Llama 3 cuts text into pieces: the regex of its tokenizer.json."""

_GROUPED = f"(?:{_LINES})|{_SPACES}"
"""The same alternatives in the same order. All without lookahead stand in one group, which
tiktoken's engine hands to the regex crate whole: half as fast again (measured)."""

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

_QUESTIONS = (r"\p{L}", r"\p{N}", r"\s", _CONTRACTION[:-1] + "|re|ve|ll|s|t|r|e|v|m|l|d)")
"""What the regex asks of a character; the last also finds one that stands for two letters."""

_LONGEST = 400_000
"""Characters. tiktoken's engine takes a step for each of a run of spaces and panics at 1,000,000
of them; what is longer than any context goes to tokenizers, which has no such limit."""


@dataclass(frozen=True)
class Proof:
    """True where tiktoken gives the tokenizer's own ids for every text."""

    reason: str
    """Why this is not proven; empty where it is."""

    def __bool__(self) -> bool:
        return not self.reason


class FastText:
    """Encodes text in which nothing is a control token, by tiktoken, for a proven tokenizer."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        alphabet = {ord(character): byte for character, byte in _alphabet().items()}
        ranks = {
            token.translate(alphabet).encode("latin-1"): number
            for token, number in vocabulary.items()
        }
        self._encoding = _encoding(_GROUPED, ranks)

    def ids(self, text: str) -> list[int] | None:
        """None for a text that is too long for tiktoken, or that is no Unicode text."""
        if len(text) > _LONGEST or not _encodes(text):
            return None
        return self._encoding.encode_ordinary(text)


def proven_fast(tokenizer_json: Path) -> Proof:
    """Whether tiktoken, given the vocabulary, encodes every text as the tokenizer itself does.

    Both cut text into pieces with a regex, take a piece that is a token as it is (`ignore_merges`;
    tiktoken always does), and in any other merge two neighbours, those of the lowest rank first,
    of equal ranks the leftmost, until nothing merges. It is proven in three steps.

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
       value, and on their cuts of all short strings of such characters.

    Takes a file that Encoder takes; raises PipeError where it cannot be read. About 3 s for
    Llama 3's, most of it for step 3, which is done once a process.
    """
    description = json.loads(read_tokenizer(tokenizer_json))
    reason = _structure(description) or _merges(description["model"]) or _engines()
    return Proof(reason)


def read_tokenizer(tokenizer_json: Path) -> str:
    """Text of a tokenizer.json. Raises PipeError where it cannot be read."""
    try:
        return tokenizer_json.read_text(encoding="utf-8")
    except OSError as error:
        raise PipeError(f"{tokenizer_json} cannot be read: {error}", "Check model.base.") from None


def _structure(description: Mapping[str, Any]) -> str:
    """Step 1: what the tokenizer does that tiktoken does not, or empty."""
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
    alphabet = _alphabet().keys()
    if not alphabet <= vocabulary.keys() or not alphabet >= set().union(*vocabulary):
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
def _engines() -> str:
    """Step 3: where the two regex engines differ, or empty."""
    scalars = array("I", chain(range(0xD800), range(0xE000, 0x110000)))
    return _compared(scalars.tobytes().decode(f"utf-32-{sys.byteorder[0]}e"))


def _compared(every: str) -> str:
    """The same for the characters given, each once."""
    taken = [_taken_by_tiktoken(question, every) for question in _QUESTIONS]
    alike = _one_piece_each(taken[:-1], every) and _taken_alone(_QUESTIONS[-1], taken[-1], every)
    return _short_strings(taken[-1]) if alike else _unlike(taken, every)


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


def _short_strings(folded: str) -> str:
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
    ranks = {text.encode(): number for text, number in numbers.items()}
    fast = _encoding(_GROUPED, ranks)
    own = _cut(LLAMA3_SPLIT, "isolated", list(numbers), numbers)
    for text, ids in zip(numbers, own, strict=True):
        if fast.encode_ordinary(text) != ids:
            return f"the regex engines cut {text!r} differently"
    return ""


def _taken_by_tiktoken(question: str, text: str) -> str:
    """The parts of `text` that the regex matches; tiktoken leaves out what stands between."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = _encoding(f"{question}+", ranks)
    return bytes(encoding.encode_ordinary(text)).decode()


def _encoding(regex: str, ranks: dict[bytes, int]) -> "Encoding":
    from tiktoken import Encoding

    return Encoding("pipe", pat_str=regex, mergeable_ranks=ranks, special_tokens={})


def _cut(
    regex: str, behavior: str, texts: list[str], numbers: dict[str, int] | None = None
) -> list[list[int]]:
    """The pieces that tokenizers cuts each text into, by number; 0 for those without one."""
    tokenizer = Tokenizer(models.WordLevel(numbers or {"": 0}, unk_token=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(regex), behavior)
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]


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
def _alphabet() -> dict[str, int]:
    """Character -> the byte that it stands for in tokenizer.json: GPT-2's `bytes_to_unicode`."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = sorted(set(range(256)).difference(shown))
    return {chr(byte): byte for byte in shown} | {
        chr(0x100 + place): byte for place, byte in enumerate(hidden)
    }
