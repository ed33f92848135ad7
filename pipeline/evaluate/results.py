"""results.json of one task: every figure with its interval, and what changed from what."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate import intervals
from pipeline.evaluate.metrics import Measured, Metric
from pipeline.recipe.metrics import EXACT_MATCH

Floats = NDArray[np.float64]
Json = dict[str, Any]

COMPARED = (EXACT_MATCH, "well_formed", "cross_entropy")
"""Beside the metric that decides."""


@dataclass(frozen=True)
class Value:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        return {key: round(value, 6) for key, value in asdict(self).items()}


class Scores:
    """The statistics of every engine and metric of a task, drawn anew together.

    `replies` holds, for each engine, all replies to the first item, then to the second, ...
    """

    def __init__(
        self,
        replies: Mapping[str, Sequence[Measured]],
        metrics: Sequence[Metric],
        samples: int,
        seed: int,
    ) -> None:
        self._metrics = {metric.name: metric for metric in metrics}
        self._samples, self._seed = samples, seed
        self._items: dict[tuple[str, str], Floats] = {}
        for engine, measured in replies.items():
            for metric in metrics:
                statistics = _statistics(metric, measured, samples)
                if statistics.any() and _is_finite(metric, statistics):
                    self._items[engine, metric.name] = statistics

    def engines(self) -> Json:
        """Engine -> metric -> value; a metric that says nothing of an engine is absent."""
        found: Json = {}
        for engine, metric in self._items:
            found.setdefault(engine, {})[metric] = self.value(engine, metric).as_json()
        return found

    def comparisons(
        self, pairs: Sequence[tuple[str, str]], deciding: str = EXACT_MATCH
    ) -> list[Json]:
        """What changed from one engine to another, where both have the metric."""
        return [
            self._comparison(metric, one, other)
            for one, other in pairs
            for metric in dict.fromkeys((deciding, *COMPARED))
            if (one, metric) in self._items and (other, metric) in self._items
        ]

    def value(self, engine: str, metric: str) -> Value:
        statistics = self._items[engine, metric]
        value = _figure(self._metrics[metric], statistics)
        if self._metrics[metric].is_share:
            counted = statistics[statistics[:, 1] > 0, 0]
            draws = partial(self._resampled, engine, metric)
            low, high = intervals.share_interval(counted, self._seed, draws)
        else:
            low, high = intervals.percentile_range(self._resampled(engine, metric))
        return Value(value, min(low, value), max(high, value))

    def _comparison(self, metric: str, one: str, other: str) -> Json:
        """The p-values are each test's own, not corrected for there being several."""
        before, after = (self.value(engine, metric).value for engine in (one, other))
        p_value, test = self._tested(metric, one, other)
        return {
            "metric": metric,
            "from": one,
            "to": other,
            "change": self._change(metric, one, other, after - before).as_json(),
            "percent": round(100 * (after - before) / before, 4) if before else None,
            "p_value": float(f"{p_value:.4g}"),
            "test": test,
        }

    def _change(self, metric: str, one: str, other: str, change: float) -> Value:
        def drawn() -> Floats:
            return self._resampled(other, metric) - self._resampled(one, metric)

        if self._metrics[metric].is_share:
            differences = self._differences(metric, one, other)
            low, high = intervals.change_interval(differences, self._seed, drawn)
        else:
            low, high = intervals.percentile_range(drawn())
        return Value(change, min(low, change), max(high, change))

    def _tested(self, metric: str, one: str, other: str) -> tuple[float, str]:
        differences = self._differences(metric, one, other)
        if self._metrics[metric].is_share and self._samples == 1:
            before, after = differences < 0, differences > 0
            return intervals.mcnemar(before, after), "McNemar, exact"
        return intervals.sign_flip(differences, self._seed), "sign-flip permutation"

    def _differences(self, metric: str, one: str, other: str) -> Floats:
        """The change of each item's sum, where both engines have the item: a share's is -1 to 1."""
        before, after = self._items[one, metric], self._items[other, metric]
        both = (before[:, 1] > 0) & (after[:, 1] > 0)
        return np.asarray(after[both, 0] - before[both, 0], dtype=np.float64)

    def _resampled(self, engine: str, metric: str) -> Floats:
        start, end = self._places[engine, metric]
        return self._metrics[metric].aggregate(self._sums[:, start:end])

    @cached_property
    def _sums(self) -> Floats:
        return intervals.resampled_sums(np.concatenate([*self._items.values()], axis=1), self._seed)

    @cached_property
    def _places(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Which columns of the sums belong to whom."""
        ends = np.cumsum([0, *(each.shape[1] for each in self._items.values())]).tolist()
        return dict(zip(self._items, pairwise(ends), strict=True))


def pairs_of(engines: Sequence[str], types: Sequence[str]) -> list[tuple[str, str]]:
    """Which change is of interest: what training gained, and what each step after it costs.

    base to tuned; tuned to merged and each GGUF; the first GGUF, which Ollama has under the plain
    name, to what is served. Tuned is the adapter or, where that was not asked, the next after it.
    """
    local = [name for name in ("adapter", "merged", *types) if name in engines]
    served = [name for name in ("ollama", "endpoint") if name in engines]
    tuned = next(iter([*local, *served]), None)
    if tuned is None:
        return []
    first = next((type for type in types if type in engines), tuned)
    pairs = [("base", tuned)] if "base" in engines else []
    pairs += [(tuned, name) for name in local if name != tuned]
    return pairs + [(first, name) for name in served if name != first]


def _figure(metric: Metric, statistics: Floats) -> float:
    return float(metric.aggregate(statistics.sum(axis=0)[None])[0])


def _is_finite(metric: Metric, statistics: Floats) -> bool:
    """JSON knows no other numbers, and nothing can be said of one."""
    return isfinite(_figure(metric, statistics))


def _statistics(metric: Metric, measured: Sequence[Measured], samples: int) -> Floats:
    """[items, width]: the mean over an item's replies; zeros where the metric says nothing."""
    rows = [metric.of(each) or (0.0,) * metric.width for each in measured]
    table = np.array(rows, dtype=np.float64).reshape(-1, samples, metric.width)
    return np.asarray(table.mean(axis=1))
