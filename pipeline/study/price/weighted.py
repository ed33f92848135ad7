"""A price as the mean of the likeliest next numbers, each weighted by its probability."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def values_of_tokens(texts: list[str]) -> Floats:
    """float64 [vocabulary]: the number that each token is, by the text of its id; nan for others.

    A number is ASCII digits and nothing else: no sign, space or word boundary before it.
    """
    is_number = [text.isascii() and text.isdecimal() for text in texts]
    return np.array(
        [float(text) if yes else np.nan for text, yes in zip(texts, is_number, strict=True)]
    )


def weighted_prices(logs: NDArray[np.float32], values: Floats, top: int) -> Floats:
    """The expectation over the `top` likeliest number tokens: [rows, vocabulary] -> [rows].

    `logs` are natural log-probabilities, `values` as `values_of_tokens` gives them. The weights
    are the tokens' probabilities, made to add up to 1; equally likely tokens count by their ids.
    """
    numbers = np.flatnonzero(np.isfinite(values))
    count = min(top, len(numbers))
    prices = np.empty(len(logs))
    for row, line in enumerate(logs):
        known = line[numbers].astype(np.float64)
        best = np.argsort(-known, kind="stable")[:count]
        weights = np.exp(known[best] - known[best[0]])
        prices[row] = weights @ values[numbers[best]] / weights.sum()
    return prices


def kept_rows(path: Path, rows: int) -> NDArray[np.float32]:
    """What `Scorer.score` kept, one supervised token a text: [rows, vocabulary], mapped."""
    vocabulary = path.stat().st_size // (4 * rows)
    return np.memmap(path, np.float32, "r", shape=(rows, vocabulary))
