"""Which rows are taken: named predicates over a row, the cheapest first."""

import re
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from pipeline.answers import refutes
from pipeline.data.read.rows import Row
from pipeline.data.work.language import check_languages, is_in_other_language
from pipeline.recipe import Filters

CHUNK = 512
"""Characters whose compressed size is looked at."""
COPIES = 4
"""Chunks in a row: 2,048 characters, which a single copy of what stands in reach cannot fill."""
COPIED = 64
"""Compressed bytes of such a run that repeats what stands before it. Measured: loops of any phrase
of 1 to 900 characters 40 to 61; the least of 8,900 pieces of 12,000 characters: documentation 74,
code 70 (but for two test files with equal rows, 53 and 64), tables 69, JSON 70, counted cases 268,
worked arithmetic 755."""
HISTORY = 11
"""Log2 of the compressor's window, of which 1,786 characters can be copied from."""
REPEATED = 1500
"""Characters of sentences and lines on end, each seen KNOWN_FROM times before. Those pieces have
at most 731. The share of repeated lines (Rae et al. 2021, table A1: at most 20% of characters)
would drop most tables and JSON, which reach 99% and 86%."""
KNOWN_FROM = 3
SENTENCE = 16
"""Characters of a sentence or line that may count as repeated; half of them letters."""

_REACH = (1 << HISTORY) - 262
"""zlib keeps MIN_LOOKAHEAD of its window for what comes."""
_PROBE = 16
_ENDS = (". ", "! ", "? ", "。", "！", "？")
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


@dataclass(frozen=True)
class Check:
    """A reason to drop a row, and when it holds; pure, and never raises."""

    reason: str
    holds: Callable[[Row], bool]


def checks(filters: Filters) -> tuple[Check, ...]:
    """What the recipe asks of a row alone, cheapest first; picklable.

    Raises RecipeError for an unknown language.
    """
    check_languages(filters.languages)
    found = []
    if filters.min_reasoning_words:
        found.append(Check("too_short", partial(_too_short, least=filters.min_reasoning_words)))
    if filters.repetition:
        found.append(Check("repetition_loop", _loops))
    if filters.languages:
        found.append(Check("wrong_language", partial(_wrong_language, wanted=filters.languages)))
    if filters.verify:
        found.append(Check("refuted", _refuted))
    return tuple(found)


def first_reason(checks: Iterable[Check], row: Row) -> str | None:
    """The first check's reason that holds; None for a row to take."""
    return next((check.reason for check in checks if check.holds(row)), None)


def word_count(text: str) -> int:
    """Words between spaces; two characters of a script without spaces are one."""
    spaceless = 0 if text.isascii() else len(_SPACELESS.findall(text))
    if not spaceless:
        return len(text.split())
    return len(_SPACELESS.sub(" ", text).split()) + (spaceless + 1) // 2


def is_loop(text: str) -> bool:
    """Whether the text says the same over and over for some 2,500 characters, anywhere.

    Either a phrase of up to 1,786 characters without a change, or known sentences in any order.
    """
    return _copies_itself(text) or _knows_every_sentence(text)


def _too_short(row: Row, least: int) -> bool:
    if row.reasoning is None or len(row.reasoning.split(maxsplit=least)) >= least:
        return False
    return word_count(row.reasoning) < least


def _loops(row: Row) -> bool:
    return is_loop(row.answer) or (row.reasoning is not None and is_loop(row.reasoning))


def _wrong_language(row: Row, wanted: tuple[str, ...]) -> bool:
    texts = (row.question, row.answer, row.reasoning or "")
    return any(is_in_other_language(text, wanted) for text in texts)


def _refuted(row: Row) -> bool:
    return row.reference is not None and refutes(row.answer, row.reference)


def _copies_itself(text: str) -> bool:
    """A run of chunks, each compressed to almost nothing by what stands just before it."""
    # a byte a character, so that a phrase is as long in every script
    letters = text.encode("utf-16-le", "surrogatepass")[::2]
    if not _may_copy(letters):
        return False
    compressor = zlib.compressobj(6, zlib.DEFLATED, -HISTORY)
    sizes: deque[int] = deque([COPIED + 1] * COPIES, COPIES)
    for start in range(0, len(letters) - CHUNK + 1, CHUNK):
        size = len(compressor.compress(letters[start : start + CHUNK]))
        sizes.append(size + len(compressor.flush(zlib.Z_SYNC_FLUSH)))
        if sum(sizes) <= COPIED:
            return True
    return False


def _may_copy(letters: bytes) -> bool:
    """Whether enough chunks on end begin with what stands just before them: far cheaper."""
    run = 0
    for start in range(CHUNK, len(letters) - CHUNK + 1, CHUNK):
        begin = letters[start : start + _PROBE]
        known = letters.find(begin, max(0, start - _REACH), start + _PROBE - 1) >= 0
        run = run + 1 if known else 0
        if run == COPIES:
            return True
    return False


def _knows_every_sentence(text: str) -> bool:
    """A stretch without one new sentence or line, all of them seen several times before."""
    for end in _ENDS:
        text = text.replace(end, "\n")
    sentences = text.split("\n")
    counts = Counter(sentences)
    if sum((n - KNOWN_FROM) * len(s) for s, n in counts.items() if n > KNOWN_FROM) < REPEATED:
        return False
    seen: Counter[str] = Counter()
    stretch = 0
    for sentence in sentences:
        if seen[sentence] < KNOWN_FROM:
            stretch = 0
        elif len(sentence) >= SENTENCE and 2 * sum(map(str.isalpha, sentence)) >= len(sentence):
            stretch += len(sentence)
        if stretch >= REPEATED:
            return True
        seen[sentence] += 1
    return False
