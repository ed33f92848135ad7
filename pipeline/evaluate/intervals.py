"""How sure is a figure, and is a difference more than chance? Everything is over items.

The replies to one question are no independent evidence, so it is questions that are drawn anew:
arXiv 2504.07086 shows what single runs on few questions are worth.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
FLIPS = 9_999
"""With the observed one among them: the smallest p is 2 / 10,000."""
LEVEL = 0.95
FEW = 10
"""Items on the rarer side below which resamples say too little: a rule of thumb, as those listed by
Brown, Cai and DasGupta, Statistical Science 16 (2001) 101-133."""
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

    A resample without any item that counts has no value and is left out; nan where none has one.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def share_interval(shares: Floats, seed: int, draws: Callable[[], Floats] | None = None) -> Range:
    """95% interval of the mean of shares, 0 to 1 an item: [items], at least one.

    Wilson's where each is 0 or 1 and fewer than FEW are 0, or fewer than FEW are 1: by resamples,
    one hit among 50 would be surer than none. Otherwise the percentile bootstrap, of `draws` (means
    that are resampled already), or by the seed.
    """
    if np.isin(shares, (0.0, 1.0)).all():
        hits = int(shares.sum())
        if min(hits, len(shares) - hits) < FEW:
            return wilson(hits, len(shares))
    return percentile_range(draws() if draws else _resampled_means(shares, seed))


def change_interval(changes: Floats, seed: int, draws: Callable[[], Floats] | None = None) -> Range:
    """95% interval of the mean of paired changes of a share, -1 to 1 an item: [items].

    Tango's where each is -1, 0 or 1 and all but fewer than FEW are the same; else as
    `share_interval`.
    """
    if np.isin(changes, (-1.0, 0.0, 1.0)).all():
        gained, lost = int(np.sum(changes > 0)), int(np.sum(changes < 0))
        items = len(changes)
        if items - max(gained, lost, items - gained - lost) < FEW:
            return tango(gained, lost, items)
    return percentile_range(draws() if draws else _resampled_means(changes, seed))


def _resampled_means(values: Floats, seed: int) -> Floats:
    return resampled_sums(values[:, None], seed)[:, 0] / len(values)


def wilson(hits: int, items: int) -> Range:
    """Wilson's score interval of a share at 95%: E. B. Wilson, JASA 22 (1927) 209-212.

    It stays honest where all items agree, and every resample is the same.
    """
    from scipy.stats import binomtest

    found = binomtest(hits, items).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def tango(gained: int, lost: int, items: int) -> Range:
    """The score interval at 95% of (gained - lost) / items, of paired yes/no values.

    T. Tango, Statistics in Medicine 17 (1998) 891-908: the changes that the score test does not
    refute. It holds at 0 and 1, where resamples are all alike; nothing changed at all gives
    0 plus or minus wilson(0, items)[1].
    """
    return _tango_low(gained, lost, items), -_tango_low(lost, gained, items)


def _tango_low(gained: int, lost: int, items: int) -> float:
    from scipy.optimize import brentq

    if lost == items:
        return -1.0
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)

    def score(change: float) -> float:
        """Above 0 where `change` is refuted as too low."""
        # the likeliest share that lost, given the change, is a root of a quadratic
        linear = -gained - lost + (2 * items - gained + lost) * change
        constant = -lost * change * (1 - change)
        root = max(0.0, linear**2 - 8 * items * constant) ** 0.5
        share_lost = (root - linear) / (4 * items)
        variance = items * (2 * share_lost + change * (1 - change))
        return float(gained - lost - items * change - z * max(0.0, variance) ** 0.5)

    # at the estimate itself the score is 0 too, where all items agree
    return float(brentq(score, -1.0, (gained - lost) / items - 1e-9))


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
