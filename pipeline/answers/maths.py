"""math-verify, bounded and quiet: https://github.com/huggingface/Math-Verify

It imports sympy, a second or two, so nothing here does before the first expression.
"""

import logging
import re
import threading
from cmath import isinf
from fractions import Fraction
from functools import lru_cache
from typing import Any

LARGEST_EXPONENT = 10**7
"""Of a number, as the text's exponents multiply to at most: 9^{9^9} takes sympy all memory."""
SECONDS = 30
"""For each step of math-verify, which keeps it by SIGALRM, on a process's main thread only. What is
let through takes a tenth of a second: a verdict must not depend on how busy the machine is."""
ROUNDING = 0.02
"""Relative difference up to which an inexact value may be the other one, rounded."""

_POWER = re.compile(r"(?:\^|\*\*)\s*(?:\{|\(|-?\w+)?")
_FACTORIAL = re.compile(r"(?:\d{4}|[)}\]!])\s*!")
_POINTS = ((0.37, 1.91, 0.83, 2.57, 1.13), (1.71, 0.59, 2.33, 0.29, 3.07))
"""Values for the letters of two formulas: positive, for roots and ln; else without relation."""


def parse(text: str) -> list[Any]:
    """math-verify's reading: a sympy expression and its text; empty where there is none."""
    return list(_library().parse(text, parsing_timeout=_seconds()))


def verify(wanted: list[Any], said: list[Any]) -> bool:
    """Whether math-verify finds two readings equal; their order matters to it."""
    return bool(_library().verify(wanted, said, timeout_seconds=_seconds()))


def are_unequal(one: str, other: str, near: Fraction | None = None) -> bool:
    """Two LaTeX formulas are read, unequal in both orders, and further apart than `near`.

    That is by value, with numbers for the letters, since no simplification finds every equality;
    None leaves it out.
    """
    a, b = parse(f"${one}$"), parse(f"${other}$")
    if not a or not b or isinstance(a[0], str) or isinstance(b[0], str):
        return False
    if near is not None and _are_near(a[0], b[0], near):
        return False
    return not (verify(a, b) or verify(b, a))


def is_bounded(text: str) -> bool:
    """Whether sympy can take the text's powers and factorials: no towers, nothing huge."""
    product = 1
    for power in _POWER.finditer(text):
        exponent, end = _exponent(text, power)
        if "^" in exponent or "**" in exponent or _POWER.match(text, end):
            return False
        of_brackets = text[: power.start()].rstrip().endswith((")", "}"))
        for number in map(int, re.findall(r"\d{1,9}", exponent)):
            product *= number if number >= 10 or of_brackets else 1
        if product > LARGEST_EXPONENT:
            return False
    return not _FACTORIAL.search(text)


def _exponent(text: str, power: re.Match[str]) -> tuple[str, int]:
    """An exponent and where it ends."""
    opening = power[0][-1]
    if opening not in "{(":
        return power[0].lstrip("^*"), power.end()
    depth = 0
    for end in range(power.end() - 1, len(text)):
        depth += (text[end] in "{(") - (text[end] in "})")
        if depth == 0:
            return text[power.end() : end], end + 1
    return text[power.end() :], len(text)


def _are_near(one: Any, other: Any, near: Fraction) -> bool:
    """Whether the values are close wherever they are looked at; also where there is none."""
    letters = sorted(one.free_symbols | other.free_symbols, key=str)
    if len(letters) > len(_POINTS[0]):
        return True
    try:
        for point in _POINTS:
            values = dict(zip(letters, point, strict=False))
            a, b = (complex(side.subs(values).evalf()) for side in (one, other))
            margin = max(float(near), ROUNDING * max(abs(a), abs(b)))
            # written so that nan is near to everything
            if isinf(a) != isinf(b) or abs(a - b) > margin:
                return False
    except (TypeError, ValueError, ArithmeticError, AttributeError, RuntimeError):
        return True
    return True


def _seconds() -> int | None:
    return SECONDS if threading.current_thread() is threading.main_thread() else None


@lru_cache(maxsize=1)
def _library() -> Any:
    import math_verify

    # it warns of every timeout, and of there being none
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify
