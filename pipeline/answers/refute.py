"""Is an answer certainly wrong?"""

from fractions import Fraction

from pipeline.answers.match import final, last_boxed, numbers, quick_match
from pipeline.answers.maths import ROUNDING, are_unequal
from pipeline.answers.reading import Reading, Term, claim, read

CONVERSIONS = frozenset(
    [Fraction(10**power) for power in range(10)]
    + [
        Fraction(18, 5),
        *map(Fraction, (3, 4, 7, 9, 12, 16, 24, 27, 36, 52, 60, 144, 365, 1440, 3600)),
    ]
)
"""Ratios of one quantity in two units: metric, percent, money, time, imperial, dozens."""


def refutes(answer: str, reference: str) -> bool:
    """True only where both are read as numbers or formulas and certainly differ.

    math-verify must find them different in both orders, and no rounding, unit or other reading
    may explain it. Words, names, letters of a choice, several different boxed answers and what
    is too large for sympy are never refuted.
    """
    if quick_match(answer, reference):
        return False
    said, wanted = claim(answer), read(final(reference))
    if said is None or wanted is None:
        return False
    if last_boxed(answer) is None and _mentions(answer, wanted):
        return False
    return _differ(said, wanted)


def _mentions(answer: str, wanted: Reading) -> bool:
    found = {term.value for number in numbers(answer) if (term := _first(read(number)))}
    return any(term.value in found for term in wanted.terms)


def _first(reading: Reading | None) -> Term | None:
    return reading.terms[0] if reading else None


def _differ(one: Reading, other: Reading) -> bool:
    """Some term of one has no counterpart in the other, in whatever order."""
    if one.brackets != other.brackets or len(one.terms) != len(other.terms):
        return False
    return any(all(_apart(a, b) for b in other.terms) for a in one.terms)


def _apart(one: Term, other: Term) -> bool:
    if one.text.replace(" ", "") == other.text.replace(" ", ""):
        return False
    if one.name and other.name and one.name != other.name:
        return False
    if one.value is not None and other.value is not None:
        return _numbers_apart(one, other) and are_unequal(one.text, other.text)
    # a formula beside a unit may be in another; an integration constant takes up any difference
    if one.unit or other.unit or one.letters != other.letters or "C" in one.letters:
        return False
    return are_unequal(one.text, other.text, max(_place(one), _place(other)))


def _numbers_apart(one: Term, other: Term) -> bool:
    """Two plain values differ, and neither rounding nor units explain it."""
    a, b = one.value, other.value
    assert a is not None and b is not None
    small, large = sorted((abs(a), abs(b)))
    if (one.decimals or other.decimals) and (
        abs(a - b) <= max(Fraction(ROUNDING) * large, _place(one), _place(other))
    ):
        return False
    if one.unit == other.unit:
        return a != b
    # between two units nothing is known; beside a bare number a sign may be in the words
    return not (one.unit and other.unit) and (small == 0 or not _converts(one, other))


def _converts(one: Term, other: Term) -> bool:
    """One may be the other in another unit, rounded where either has decimals."""
    assert one.value is not None and other.value is not None
    small, large = sorted((abs(one.value), abs(other.value)))
    open_ = Fraction(ROUNDING) if one.decimals or other.decimals else Fraction(0)
    return any(abs(large / small / ratio - 1) <= open_ for ratio in CONVERSIONS)


def _place(term: Term) -> Fraction:
    """What its last digit leaves open: half of an integer's, all of a decimal's."""
    if term.decimals is None:
        return Fraction(0)
    return Fraction(1, 10**term.decimals) if term.decimals else Fraction(1, 2)
