"""Is an answer right?"""

import re
from collections.abc import Iterator

from pipeline.answers.maths import is_bounded, parse, verify

_BOXED = "\\boxed{"
_NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|(?<![\w.)])\.\d+)")


def exact_match(answer: str, reference: str) -> bool:
    """True when both say the same in the end: the same text, number or expression.

    Plain numbers are compared here; all else is math-verify's to judge.
    """
    same = quick_match(answer, reference)
    return _verified(answer, final(reference)) if same is None else same


def quick_match(answer: str, reference: str) -> bool | None:
    """What text and plain numbers alone say; None where an expression must be read."""
    said, wanted = final(answer), final(reference)
    if not said:
        return False
    if _NUMBER.fullmatch(wanted) and (_NUMBER.fullmatch(said) or last_boxed(answer) is None):
        found = numbers(said)
        return bool(found) and _plain_number(found[-1]) == _plain_number(wanted)
    return True if _folded(said) == _folded(wanted) else None


def final(text: str) -> str:
    """The last \\boxed{...}'s content, else the whole text."""
    box = last_boxed(text)
    return (text if box is None else box).strip()


def last_boxed(text: str) -> str | None:
    """None where nothing is boxed, or the last box is not closed."""
    start = text.rfind(_BOXED)
    return None if start < 0 else _braced(text, start + len(_BOXED))


def boxed(text: str) -> Iterator[str]:
    """Every box's content in order; of one that is not closed, the rest of the text."""
    for box in re.finditer(re.escape(_BOXED), text):
        content = _braced(text, box.end())
        yield text[box.end() :] if content is None else content


def numbers(text: str) -> list[str]:
    """Plain numbers as they are written, `1,234.50` and `.5` among them."""
    return _NUMBER.findall(text)


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def _verified(answer: str, wanted: str) -> bool:
    if not (is_bounded(answer) and is_bounded(wanted)):
        return False
    return verify(parse(f"${wanted}$"), parse(answer))


def _braced(text: str, begin: int) -> str | None:
    """What stands from `begin` up to the brace that closes the one before it."""
    depth = 1
    for position in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position]
    return None


def _plain_number(text: str) -> str:
    whole, dot, fraction = text.replace(",", "").partition(".")
    fraction = fraction.rstrip("0")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    digits = digits.lstrip("0") or "0"
    if fraction:
        return f"{sign}{digits}{dot}{fraction}"
    return digits if digits == "0" else f"{sign}{digits}"
