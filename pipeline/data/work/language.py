"""The language of a text's words, by py3langid on a few windows of the text."""

import re
from functools import lru_cache
from typing import Any

from pipeline.errors import RecipeError

# fmt: off
KNOWN = frozenset(
    """
    af am an ar as az ba be bg bn br bs ca cs cy da de dz el en eo es et eu fa fi fo fr fy ga gd gl
    gu ha he hi hr ht hu hy id ig is it ja jv ka kk km kn ko ku ky la lb lg ln lo lt lv mg mk ml mn
    mr ms mt my ne nl nn no oc om or pa pl ps pt qu ro ru rw sa se si sk sl sn so sq sr st sv sw ta
    te tg th tk tl tr tt ug uk ur uz vi vo wa xh yo zh zu
    """.split()  # noqa: SIM905
)
# fmt: on
"""ISO 639-1 codes of py3langid's model, whose three-letter codes are left out of account."""

LEAST = 40
"""UTF-8 bytes of distinct words, or there is no judgement: 13 Chinese characters, 7 short words."""
MOST = 160
"""UTF-8 bytes of a window's distinct words that are judged."""
WINDOWS, WIDTH = 5, 320
"""At most so many windows, at even distances, and their characters: half of a text of up to 3,200
characters is looked at; in a longer one a switch of a third is always met."""
SURE = 0.6
"""Probability of one other language from which on a window is in it. Measured: 4 of 1,647 pieces
(12,000 characters) of English documentation are dropped, lists of German names and German text;
of 1,860 interface texts of 200 bytes in 31 languages, 22 pass as English, 0 fail as their own."""
RATIO = 10
"""How much less likely all wanted languages must be: Danish and Norwegian lie within it."""
FOREIGN_SHARE = 0.05
"""Characters of other scripts than Latin and Greek, from which share on they are judged apart."""

_FENCE = "```"
_EDGES = ".,;:!?'\"()[]*_-–—“”‘’…"
_FOREIGN = re.compile(
    "[\u0400-\u1cff\u3041-\u3096\u30a1-\u30fa\u3105-\ud7ff\uf900-\ufaff\ufb1d-\ufdff\ufe70-\ufefc"
    "\uff66-\uff9f\U00020000-\U0003ffff]+"
)
_NO_LETTERS = re.compile(
    r"\\[A-Za-z]+"
    "|[\\x00-@\\[-`{-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbf×÷\u2000-\u2bff\u3000-\u3004\u3008-\u3020"
    "\uff00-\uff20\uff3b-\uff40\uff5b-\uff65]+"
)


def check_languages(codes: tuple[str, ...]) -> None:
    """Raise RecipeError for a code that py3langid does not know."""
    unknown = [code for code in codes if code not in KNOWN]
    if unknown:
        raise RecipeError(
            f"Unknown language in filters.languages: {', '.join(unknown)}.",
            f"Known are: {' '.join(sorted(KNOWN))}",
        )


def is_in_other_language(text: str, languages: tuple[str, ...]) -> bool:
    """Whether some part of the text is surely in none of the languages (codes of KNOWN).

    Code, formulas, numbers and names with symbols in them do not count; what is left of a window
    is judged from LEAST bytes of distinct words on.
    """
    prose = " ".join(text.split(_FENCE)[::2]) if _FENCE in text else text
    return any(_is_other(words(part), languages) for part in (*_foreign(prose), *_windows(prose)))


def words(text: str) -> str:
    """The distinct words of a text, without what stands in formulas and code."""
    kept: dict[str, None] = {}
    for token in text.split():
        core = token.strip(_EDGES)
        if not core.isascii():
            kept[_NO_LETTERS.sub(" ", core).strip()] = None
        elif len(core) > 1 and core.replace("'", "").isalpha():
            kept[core] = None
    return " ".join(kept).strip()


def _foreign(text: str) -> tuple[str, ...]:
    """What is written in other scripts, where that is a fair part of the text."""
    # each takes a byte more than its place at least, and most texts have fewer such bytes
    if len(text.encode("utf-8", "replace")) < (1 + FOREIGN_SHARE) * len(text):
        return ()
    found = _FOREIGN.findall(text)
    enough = sum(map(len, found)) >= FOREIGN_SHARE * len(text)
    return (" ".join(found)[:WIDTH],) if enough else ()


def _windows(text: str) -> list[str]:
    count = min(WINDOWS, -(-len(text) // (2 * WIDTH)))
    if count < 2:
        return [text[:WIDTH]]
    step = (len(text) - WIDTH) / (count - 1)
    return [text[round(n * step) :][:WIDTH] for n in range(count)]


def _is_other(found: str, languages: tuple[str, ...]) -> bool:
    text = found.encode("utf-8", "replace")[:MOST]
    if len(text) < LEAST:
        return False
    language, probability = _identifier().classify(text)
    if language in languages or probability < SURE:
        return False
    ranked = dict(_identifier().rank(text))
    return bool(probability >= RATIO * sum(ranked[code] for code in languages))


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """The model: a second to load, then 130 MB."""
    import numpy as np
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(KNOWN)
    # its float16 by columns takes five times as long
    identifier.nb_ptc = np.ascontiguousarray(identifier.nb_ptc, dtype=np.float32)
    return identifier
