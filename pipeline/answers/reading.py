"""What an answer says in the end, as terms that can be compared; None where that is not certain."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from pipeline.answers.match import boxed, numbers
from pipeline.answers.maths import is_bounded

LONGEST = 200
"""Characters of a formula that is read."""
BRACKETS = 8
"""Parentheses in a formula: each takes math-verify's parser up to a tenth of a second."""
SENTENCE = 100
"""Characters of an answer whose only number is taken for what it says."""


@dataclass(frozen=True)
class Term:
    """A number or formula as it stands in an answer."""

    text: str
    """LaTeX for math-verify, without name and unit."""
    name: str = ""
    """The variable that it is given to."""
    value: Fraction | None = None
    """None for a formula."""
    decimals: int | None = None
    """Digits after the point; None for a fraction or formula."""
    unit: str = ""
    """A unit, a percent sign, a currency, or any words around the number."""

    @property
    def letters(self) -> frozenset[str]:
        return frozenset(_LETTER.findall(self.text))


@dataclass(frozen=True)
class Reading:
    brackets: str
    """Around a list, set or interval; empty around one term."""
    terms: tuple[Term, ...]


_TIDY = {
    **dict.fromkeys(("\\left", "\\right", "\\displaystyle", "\\,", "\\!"), ""),
    **dict.fromkeys(("\\(", "\\)", "\\[", "\\]", "$$"), ""),
    **dict.fromkeys(("\\ ", "\\;", "\\:", "~"), " "),
    **dict.fromkeys(("\\dfrac", "\\tfrac"), "\\frac"),
    **dict.fromkeys(("°", "^{\\circ}", "\\degree"), "^\\circ"),
    **{"{,}": ",", "\\%": "%", "\\$": "$", "−": "-", "×": "\\times ", "π": "\\pi "},
}
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_NAMED = re.compile(r"(?:([A-Za-z])(?:\([a-z]\)|_\w|_\{\w+\})?\s*=)?\s*(.*)", re.DOTALL)
_FRACTION = re.compile(r"\\frac\s*(?:\{(\d+)\}\s*\{(\d+)\}|(\d)\s*(\d))")
_QUANTITY = re.compile(
    r"([-+]?)\s*([$€£¥]?)\s*"
    r"(?:(\d{1,3}(?:[ ,]\d{3})+|\d+)?(\.\d+)?|(\d+\s+)?(\d+)\s*/\s*(\d+))"
    r"\s*(%|\^\\circ\s*[CF]?|[A-Za-z]{2,}+(?:[ /.·-]{1,2}[A-Za-z]++|\^?\{?[23²³]\}?)*+)?"
)
_FORMULA = re.compile(
    r"(?:\d++(?:\.\d++)?|\.\d++|[-+/^(){}\s]|\*(?!\*)|\\sqrt\s*\[\d\]"
    r"|\\(?:frac|sqrt|pi|cdot|times|infty|ln|sin|cos|tan)(?![A-Za-z])"
    r"|(?<![A-Za-z])[A-Za-z](?![A-Za-z]))++"
)
_LETTER = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_HIGH_POWER = re.compile(r"[A-Za-z)}]\s*\^\s*\{?\s*-?\d{3}")
_BROKEN = re.compile(
    r"\d\s+[\d.]|\{\s*\}|(?:^|[-+*/^({\[])\s*[*/^]|[-+*/^]\s*(?:$|[)}\]])|\^\s*[-+]"
)
"""math-verify reads a part of such a text."""
_LIST = re.compile(r"(\(|\[|\\\{|)(.*?)(\)|\]|\\\}|)", re.DOTALL)
_MARK = re.compile(r"(?:####|answer\**\s*(?:is|:|=)[\s*:]*)(.+)", re.IGNORECASE)
_COUNT_WORD = re.compile(
    r"\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|\w+ty"
    r"|hal[fv]\w*|third|quarter|dozen|hundred|thousand|\w+llion|none?|once|twice)s?\b",
    re.IGNORECASE,
)


def claim(answer: str) -> Reading | None:
    """The boxed answer, the one after `answer is` or `####`, or the only number said."""
    boxes = boxed(answer)
    if content := next(boxes, None):
        # another box may hold another part, or a step
        return read(content) if all(box == content for box in boxes) else None
    marked = _MARK.findall(answer)
    return read(marked[-1] if marked else answer) or _lone_number(answer)


def read(text: str) -> Reading | None:
    """One term, or a list of terms."""
    text = _tidied(text)
    if term := _term(text):
        return Reading("", (term,))
    brackets, terms = "", list[Term | None]()
    for part in text.split("\\cup"):
        opening, inside, closing = _groups(_LIST, part.strip())
        brackets += f"{opening}{closing} "
        terms += map(_term, _items(inside))
    found = tuple(term for term in terms if term)
    # (3) or (B) may name a choice
    whole = len(found) == len(terms) and (len(found) > 1 or "{" in brackets)
    return Reading(brackets, found) if whole else None


def _lone_number(answer: str) -> Reading | None:
    found = numbers(answer)
    if len(answer) > SENTENCE or len(found) != 1 or _COUNT_WORD.search(answer):
        return None
    term = _quantity(found[0])
    return Reading("", (replace(term, unit="in words"),)) if term else None


def _tidied(text: str) -> str:
    if len(text) > 2 * LONGEST:
        return ""
    for old, new in _TIDY.items():
        text = text.replace(old, new)
    text = _WRAPPED.sub(r" \1 ", text).lstrip(" *\n").rstrip(" .*\n")
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == "$" else text


def _items(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    items, depth = [""], 0
    for letter in text:
        depth += (letter in "({[") - (letter in ")}]")
        if letter == "," and depth == 0:
            items.append("")
        else:
            items[-1] += letter
    return items


def _term(text: str) -> Term | None:
    name, text = _groups(_NAMED, text.strip())
    if quantity := _quantity(text):
        return replace(quantity, name=name)
    if re.fullmatch(r"\(\w+\)", text) or _BROKEN.search(text) or not _FORMULA.fullmatch(text):
        return None
    if len(text) > LONGEST or text.count("(") > BRACKETS or not _is_closed(text):
        return None
    large = _HIGH_POWER.search(text) or not is_bounded(text)
    says = re.search(r"\d|\\pi|\\infty", text)
    return Term(text, name) if says and not large else None


def _is_closed(text: str) -> bool:
    """Every bracket has its own: math-verify reads a part of what is not closed."""
    closers = {"(": ")", "{": "}", "[": "]"}
    awaited: list[str] = []
    for letter in text:
        if letter in closers:
            awaited.append(closers[letter])
        elif letter in ")}]" and (not awaited or awaited.pop() != letter):
            return False
    return not awaited


def _quantity(text: str) -> Term | None:
    """A plain number with or without a unit: integer, decimal, fraction or mixed number."""
    match = _QUANTITY.fullmatch(_FRACTION.sub(r" \1\3/\2\4", text).strip())
    sign, currency, whole, point, mixed, top, bottom, unit = match.groups("") if match else [""] * 8
    unit = (unit or currency).strip()
    if top and int(bottom) and not (mixed and int(top) >= int(bottom)):
        value = int(mixed or 0) + Fraction(int(top), int(bottom))
        return Term(f"{sign}{value}", "", Fraction(f"{sign}{value}"), None, unit)
    if not top and (whole or point):
        digits = sign + re.sub("[ ,]", "", whole) + point
        return Term(digits, "", Fraction(digits), max(0, len(point) - 1), unit)
    return None


def _groups(pattern: re.Pattern[str], text: str) -> tuple[str, ...]:
    match = pattern.fullmatch(text)
    return match.groups("") if match else ("",) * pattern.groups
