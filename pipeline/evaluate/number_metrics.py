"""How far a number that was said is from the true one: MAE, RMSLE, hit rate, R2."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.answers.match import numbers

HIT_AMOUNT = 40.0
"""Off by less is a hit, in the answer's own unit: the rule of the price exercise that the recipe
llama3.1-8b-price follows, made for prices up to 999."""
HIT_SHARE = 0.2
"""Off by less than this share of the true number is a hit too."""
R2_WIDTH = 4
_LARGEST = 1e9
"""What is longer is a run of digits, not an amount: an error of its size would drown all others."""

Floats = NDArray[np.float64]


def number_in(text: str) -> float | None:
    """The first plain number of a text, `1,299.00` among them; None where there is none.

    A sign counts only where nothing stands before it; a number above a billion is none.
    """
    found = numbers(text)
    if not found:
        return None
    said = float(found[0].replace(",", ""))
    value = said if text.lstrip().startswith(found[0]) else abs(said)
    return value if abs(value) <= _LARGEST else None


def said_number(text: str) -> float:
    """The amount that a reply says, at least 0; 0 for a reply without a number, so that saying
    nothing costs the whole amount."""
    return max(0.0, number_in(text) or 0.0)


def absolute_error(said: float, true: float) -> float:
    return abs(said - true)


def squared_log_error(said: float, true: float) -> float:
    """(ln(1 + said) - ln(1 + true))^2, of amounts of at least 0."""
    return (math.log1p(said) - math.log1p(true)) ** 2


def is_near(said: float, true: float, share: float = HIT_SHARE) -> bool:
    """Off by less than a share of the true number; 0 is met by 0 alone."""
    return said == true or abs(said - true) < share * abs(true)


def is_hit(said: float, true: float) -> bool:
    """Off by less than HIT_AMOUNT, or by less than HIT_SHARE of the true number."""
    return abs(said - true) < HIT_AMOUNT or is_near(said, true)


def r2_statistics(said: float, true: float) -> Sequence[float]:
    """What R2 sums up, R2_WIDTH of it: items, true numbers, their squares, squared errors."""
    return 1.0, true, true * true, (said - true) ** 2


def r2_of(sums: Floats) -> Floats:
    """1 - squared errors / squared distances from the mean: [n, R2_WIDTH] -> [n].

    1 is perfect, 0 as good as always saying the items' own mean, below 0 worse than that; nan where
    all true numbers are one.
    """
    items, true, squares, errors = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = squares - true * true / items
        # of equal numbers a rounding error is left, 1e-16 of the squares
        return np.where(spread > 1e-12 * squares, 1 - errors / spread, np.nan)


def root_of_mean(sums: Floats) -> Floats:
    """Square root of sum by count: [n, 2] -> [n]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(sums[:, 0] / sums[:, 1])
