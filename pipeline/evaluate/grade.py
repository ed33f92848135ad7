"""Is an answer right? And how sure is a share of right answers?"""

import math
import re
from dataclasses import asdict, dataclass

_BOXED = "\\boxed{"
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Share:
    """A share of items, in 0..1, with its 95% interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        return {key: round(value, 4) for key, value in asdict(self).items()}


def wilson(hits: int, items: int) -> Share:
    """Wilson score interval at 95%: E. B. Wilson, JASA 22 (1927) 209-212."""
    z = 1.959964
    p = hits / items
    denominator = 1 + z * z / items
    middle = (p + z * z / (2 * items)) / denominator
    half = z * math.sqrt(p * (1 - p) / items + z * z / (4 * items * items)) / denominator
    return Share(p, max(0.0, middle - half), min(1.0, middle + half))


def exact_match(answer: str, reference: str) -> bool:
    """True when both say the same in the end: the same text, number or expression.

    Plain numbers are compared here; all else is math-verify's to judge.
    """
    said, wanted = _final(answer), _final(reference)
    if not said:
        return False
    if _NUMBER.fullmatch(wanted) and (_NUMBER.fullmatch(said) or _last_boxed(answer) is None):
        numbers = _NUMBER.findall(said)
        return bool(numbers) and _plain_number(numbers[-1]) == _plain_number(wanted)
    return _folded(said) == _folded(wanted) or _verified(answer, wanted)


def _final(text: str) -> str:
    """The last \\boxed{...}'s content, else the whole text."""
    boxed = _last_boxed(text)
    return (text if boxed is None else boxed).strip()


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def _verified(answer: str, wanted: str) -> bool:
    """math-verify: https://github.com/huggingface/Math-Verify"""
    from math_verify import parse, verify

    return bool(verify(parse(f"${wanted}$"), parse(answer)))


def _last_boxed(text: str) -> str | None:
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    depth, begin = 1, start + len(_BOXED)
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
    return f"{sign}{digits}{dot}{fraction}" if fraction else f"{sign}{digits}"
