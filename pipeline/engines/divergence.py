"""How far one model's predictions are from another's, over kept log-probabilities."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipeError

_CHUNK = 1 << 18
"""Log-probabilities of each file that are in memory at once: 2 MB as float64, near the cores."""


@dataclass(frozen=True, eq=False)
class Divergence:
    """Of a candidate from a reference, over the same positions of the same texts."""

    kl: NDArray[np.float64]
    """KL(reference || candidate) in nats, [positions]; infinite where the candidate rules out
    what the reference does not."""
    same_top: NDArray[np.bool_]
    """Whether both find the same token likeliest, [positions]."""

    @property
    def positions(self) -> int:
        return len(self.kl)

    @property
    def mean(self) -> float:
        return float(self.kl.mean())

    @property
    def same_top_share(self) -> float:
        return float(self.same_top.mean())

    def as_json(self) -> dict[str, Any]:
        """The figures for a reader; KL divergences in nats."""
        median, high = np.quantile(self.kl, [0.5, 0.99], method="inverted_cdf").tolist()
        return {
            "positions": self.positions,
            "mean": self.mean,
            "median": median,
            "p99": high,
            "max": float(self.kl.max()),
            "same_top": self.same_top_share,
        }


def divergence(reference: Path, candidate: Path, vocabulary: int) -> Divergence:
    """Compare two files that `Scorer.score` kept: float32 [positions, `vocabulary`], raw.

    KL(P || Q) = sum over tokens of P (ln P - ln Q), as llama-perplexity --kl-divergence has it,
    in float64; what rounding takes below 0 is 0. Raises PipeError for files that do not fit.
    """
    pairs = zip(_rows(reference, vocabulary), _rows(candidate, vocabulary), strict=True)
    sizes = {path: path.stat().st_size for path in (reference, candidate)}
    if len(set(sizes.values())) > 1:
        raise PipeError(f"The files hold unlike numbers of predictions: {_named(sizes)}.")
    if not sizes[reference]:
        raise PipeError(f"There are no predictions to compare: {_named(sizes)}.")
    compared = [(_kl(p, q), p.argmax(axis=1) == q.argmax(axis=1)) for p, q in pairs]
    kl, same = zip(*compared, strict=True)
    return Divergence(np.concatenate(kl), np.concatenate(same))


def perplexity(log_probabilities: Iterable[NDArray[Any]]) -> float:
    """e to the mean negative log-probability of all tokens of all texts; infinite beyond a float.

    `log_probabilities` are natural, an array a text, as `Scorer.score` gives them. Raises
    ValueError for no token at all.
    """
    arrays = [np.asarray(values, np.float64) for values in log_probabilities]
    tokens = sum(map(len, arrays))
    if not tokens:
        raise ValueError("no token has a probability")
    try:
        return math.exp(-math.fsum(float(values.sum()) for values in arrays) / tokens)
    except OverflowError:
        return math.inf


def _rows(path: Path, vocabulary: int) -> Iterator[NDArray[np.float64]]:
    """Some rows at a time: all of 128,256 log-probabilities a token would not fit in memory."""
    count, rest = divmod(path.stat().st_size, 4 * vocabulary)
    if rest:
        raise PipeError(f"{path} does not hold whole rows of {vocabulary} log-probabilities.")
    step = max(1, _CHUNK // vocabulary) * vocabulary
    with path.open("rb") as file:
        for start in range(0, count * vocabulary, step):
            values = np.fromfile(file, "<f4", min(step, count * vocabulary - start))
            yield values.reshape(-1, vocabulary).astype(np.float64)


def _kl(reference: NDArray[np.float64], candidate: NDArray[np.float64]) -> NDArray[np.float64]:
    # a token that the reference rules out adds nothing, whatever the candidate makes of it
    possible = ~np.isneginf(reference)
    ratio = np.subtract(reference, candidate, out=np.zeros_like(reference), where=possible)
    total: NDArray[np.float64] = (np.exp(reference) * ratio).sum(axis=1)
    return np.maximum(total, 0.0)


def _named(sizes: dict[Path, int]) -> str:
    return ", ".join(f"{path} {size} bytes" for path, size in sizes.items())
