"""How sure is a figure, and is a difference more than chance? Everything is over items.

The replies to one question are no independent evidence, so it is questions that are drawn anew:
arXiv 2504.07086 shows what single runs on few questions are worth.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
FLIPS = 9_999
"""With the observed one among them: the smallest p is 2 / 10,000."""
LEVEL = 0.95
_CELLS = 1_000_000
"""Of the matrix of draws that is held at a time: 8 MB."""

Floats = NDArray[np.float64]
Range = tuple[float, float]


def resampled_sums(statistics: Floats, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Sums over items drawn with replacement: [items, k] -> [resamples, k], float64.

    All columns see the same draws, so the difference of two of them is a paired one.
    """
    items, columns = statistics.shape
    random = np.random.default_rng(seed)
    sums = np.empty((resamples, columns))
    step = max(1, _CELLS // items)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = random.integers(0, items, (count, items)) + items * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * items).reshape(count, items)
        sums[start : start + count] = weights @ statistics
    return sums


def percentile_range(values: Floats) -> Range:
    """The percentile bootstrap's 95% interval: Efron and Tibshirani (1993), chapter 13.

    A resample without any item that counts has no value and is left out.
    """
    low, high = np.quantile(values[np.isfinite(values)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def wilson(hits: int, items: int) -> Range:
    """Wilson's score interval of a share at 95%: E. B. Wilson, JASA 22 (1927) 209-212.

    It stays honest where all items agree, and every resample is the same.
    """
    from scipy.stats import binomtest

    found = binomtest(hits, items).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def agreeing_change(change: int, items: int) -> Range:
    """The interval of a change that is the same (-1, 0 or 1) on every item, from Wilson's.

    Among `items` that agree, up to a share of wilson(0, items)[1] may not in the long run.
    """
    doubt = wilson(0, items)[1]
    return max(-1.0, change - doubt), min(1.0, change + doubt)


def mcnemar(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Exact two-sided p of two yes/no values an item: McNemar (1947), by the binomial."""
    from scipy.stats import binomtest

    gained, lost = int(np.sum(other & ~one)), int(np.sum(one & ~other))
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def sign_flip(differences: Floats, seed: int) -> float:
    """Two-sided p of paired differences [items], by turning their signs: Fisher (1935).

    All 2^items ways where those are fewer than FLIPS, else so many drawn by the seed.
    """
    from scipy.stats import permutation_test

    if len(differences) < 2 or not np.any(differences):
        return 1.0
    found = permutation_test(
        (differences,),
        lambda values, axis: np.sum(values, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=FLIPS,
        batch=max(1, _CELLS // len(differences)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)
