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
    """Equal final answers: numbers by value, all else by letters, spaces and case aside."""
    return bool(answer.strip()) and final_answer(answer) == final_answer(reference)


def final_answer(text: str) -> str:
    """What a solution ends with: the last \\boxed{...}, else the last number, else the text."""
    boxed = _last_boxed(text)
    if boxed is not None:
        text = boxed
    numbers = _NUMBER.findall(text)
    if numbers and (boxed is None or _NUMBER.fullmatch(text.strip())):
        return _plain_number(numbers[-1])
    return " ".join(text.lower().split())


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
