"""Texts against texts: ROUGE-L by rouge-score, BLEU by sacrebleu, and repetition."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GRAM = 4
ORDERS = 4
"""BLEU's longest n-gram."""
BLEU_WIDTH = 2 * ORDERS + 2

Floats = NDArray[np.float64]


def rouge_l(text: str, wanted: str) -> float:
    """F-measure of the longest common subsequence of words, 0 to 1: Lin (2004).

    rouge-score's words are runs of a-z and 0-9 in lower case: other scripts have none.
    """
    return float(_rouge().score(wanted, text)["rougeL"].fmeasure)


def bleu_statistics(text: str, wanted: str) -> list[float]:
    """What corpus BLEU sums up: matches of 1 to 4 words, n-grams, words said, words wanted."""
    score = _bleu().sentence_score(text, [wanted])
    return [*map(float, score.counts), *map(float, score.totals), score.sys_len, score.ref_len]


def bleu_of(sums: Floats) -> Floats:
    """Corpus BLEU, 0 to 100, of summed statistics [n, BLEU_WIDTH] -> [n].

    The formula of sacrebleu's compute_bleu (Papineni et al. 2002, a missing n-gram smoothed as
    mteval-v13a does), for many sums at once: 10,000 resamples.
    """
    matches, grams = sums[:, :ORDERS], sums[:, ORDERS : 2 * ORDERS]
    said, wanted = sums[:, -2], sums[:, -1]
    # the n-th missing order counts as 1 / 2^n of a match
    missing = np.cumsum(matches == 0, axis=1)
    smoothed = np.where(matches == 0, 0.5**missing, matches)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(smoothed / grams).mean(axis=1)
        brevity = np.where(said < wanted, np.exp(1 - wanted / said), 1.0)
        found = 100 * brevity * np.exp(logs)
    counts = (grams > 0).all(axis=1) & (matches > 0).any(axis=1)
    return np.where(wanted > 0, np.where(counts, found, 0.0), np.nan)


def repetition(text: str) -> float:
    """The share of word 4-grams that stood before in the same text, 0 to 1.

    seq-rep-4 of Welleck et al., Neural Text Generation with Unlikelihood Training (2019).
    """
    words = text.split()
    grams = [tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@lru_cache(maxsize=1)
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])


@lru_cache(maxsize=1)
def _bleu() -> Any:
    """`effective_order` changes a sentence's score, not its counts, and keeps sacrebleu quiet."""
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)
