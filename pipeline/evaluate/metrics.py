"""The table of metrics: what each takes of a reply, how items add up, and which way is better."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipeError
from pipeline.evaluate.items import Item, is_right
from pipeline.evaluate.kept import Answer, Likelihood
from pipeline.evaluate.number_metrics import (
    R2_WIDTH,
    absolute_error,
    is_hit,
    is_near,
    number_in,
    r2_of,
    r2_statistics,
    root_of_mean,
    said_number,
    squared_log_error,
)
from pipeline.evaluate.plugins import UserMetric, installed_metric, metric_in
from pipeline.evaluate.text_metrics import (
    BLEU_WIDTH,
    bleu_of,
    bleu_statistics,
    repetition,
    rouge_l,
)

Floats = NDArray[np.float64]
Statistics = Sequence[float] | None
"""What one reply adds; None where the metric says nothing of it."""


@dataclass(frozen=True)
class Measured:
    """One reply with all that is known of it."""

    item: Item
    answer: Answer
    thinking_tokens: int
    likelihood: Likelihood | None
    """Of the item's own reply; None where there is none, or the engine gives no probabilities. One
    that is no finite number, as of weights that overflow, is kept and not counted."""


@dataclass(frozen=True)
class Metric:
    name: str
    better: Literal["higher", "lower", "neither"]
    needs: Literal["reply", "reference", "own reply", "log-probabilities"]
    of: Callable[[Measured], Statistics]
    """The statistics of one reply, `width` of them."""
    aggregate: Callable[[Floats], Floats]
    """Sums over items [n, width] -> the figure [n]; nan where nothing counted."""
    width: int = 2
    is_share: bool = False
    """A yes or no for each reply: 0 or 1, counted once."""
    each: bool = True
    """Whether one reply has a value worth keeping."""
    on_request: bool = False
    """Measured only where eval.metrics names it."""

    def value_of(self, measured: Measured) -> float | None:
        """The metric of this reply alone."""
        statistics = self.of(measured)
        if statistics is None or not self.each:
            return None
        return float(self.aggregate(np.array([statistics], dtype=float))[0])


def ratio(sums: Floats) -> Floats:
    """Sum of values by sum of weights."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[:, 0] / sums[:, 1]


def perplexity(sums: Floats) -> Floats:
    """e to the mean negative log-probability of a token, all texts' tokens as one."""
    return np.exp(ratio(sums))


def _right(measured: Measured) -> bool:
    """A reply that the limit cut is never right."""
    answer, reference = measured.answer, measured.item.reference
    return answer.stopped and is_right(answer.answer, str(reference))


def _exact_match(measured: Measured) -> Statistics:
    return None if measured.item.reference is None else (_right(measured), 1)


def _wrong(measured: Measured) -> Statistics:
    graded = measured.item.reference is not None
    return (measured.answer.stopped and not _right(measured), 1) if graded else None


def _well_formed(measured: Measured) -> Statistics:
    return measured.answer.stopped and measured.answer.well_formed, 1


def _loss(measured: Measured) -> Statistics:
    likelihood = measured.likelihood
    known = likelihood is not None and isfinite(likelihood.total)
    return (-likelihood.total, likelihood.tokens) if likelihood and known else None


def _rouge(measured: Measured) -> Statistics:
    wanted = measured.item.row.get("answer")
    return (rouge_l(measured.answer.answer, wanted), 1) if wanted else None


def _bleu(measured: Measured) -> Statistics:
    wanted = measured.item.row.get("answer")
    return bleu_statistics(measured.answer.answer, wanted) if wanted else None


def true_number(item: Item) -> float | None:
    """What an item's answer should be, where that is an amount of at least 0."""
    wanted = item.reference or item.row.get("reference") or item.row.get("answer")
    found = None if wanted is None else number_in(str(wanted))
    return found if found is not None and found >= 0 else None


def _number_metric(
    name: str,
    better: Literal["higher", "lower"],
    of: Callable[[float, float], Sequence[float]],
    aggregate: Callable[[Floats], Floats] = ratio,
    **more: Any,
) -> Metric:
    """One of (number said, true number). A reply that the limit cut has said its number before."""

    def measured(each: Measured) -> Statistics:
        true = true_number(each.item)
        return None if true is None else of(said_number(each.answer.answer), true)

    return Metric(name, better, "reference", measured, aggregate, on_request=True, **more)


METRICS: tuple[Metric, ...] = (
    Metric("exact_match", "higher", "reference", _exact_match, ratio, is_share=True),
    Metric("well_formed", "higher", "reply", _well_formed, ratio, is_share=True),
    Metric(
        "truncated", "lower", "reply", lambda m: (not m.answer.stopped, 1), ratio, is_share=True
    ),
    Metric("wrong", "lower", "reference", _wrong, ratio, is_share=True),
    Metric("cross_entropy", "lower", "log-probabilities", _loss, ratio),
    Metric("perplexity", "lower", "log-probabilities", _loss, perplexity, each=False),
    # the answer alone, against the row's own: two trains of thought may share few words
    Metric("rouge_l", "higher", "own reply", _rouge, ratio),
    Metric("bleu", "higher", "own reply", _bleu, bleu_of, width=BLEU_WIDTH, each=False),
    Metric("reply_tokens", "neither", "reply", lambda m: (m.answer.tokens, 1), ratio),
    Metric("thinking_tokens", "neither", "reply", lambda m: (m.thinking_tokens, 1), ratio),
    Metric("repetition", "lower", "reply", lambda m: (repetition(m.answer.text), 1), ratio),
    _number_metric("mae", "lower", lambda said, true: (absolute_error(said, true), 1), ratio),
    _number_metric(
        "rmsle",
        "lower",
        lambda said, true: (squared_log_error(said, true), 1),
        root_of_mean,
        each=False,
    ),
    _number_metric("hit_rate", "higher", lambda said, true: (is_hit(said, true), 1), is_share=True),
    _number_metric(
        "within_20_percent", "higher", lambda said, true: (is_near(said, true), 1), is_share=True
    ),
    _number_metric("r2", "higher", r2_statistics, r2_of, width=R2_WIDTH, each=False),
)
"""pass@1 is exact_match: the mean over a question's replies, then over questions."""


def all_metrics(names: Sequence[str], files: Sequence[Path]) -> tuple[Metric, ...]:
    """Our own, those of them that `names` asks for, those of installed packages, those of files.

    Raises PipeError for a name twice.
    """
    asked = {metric.name for metric in METRICS if metric.on_request} & set(names)
    users = [(name, installed_metric(name)) for name in names if name not in asked]
    users += [(path.stem, metric_in(path)) for path in files]
    ours = (metric for metric in METRICS if not metric.on_request or metric.name in asked)
    found = [*ours, *(_of_user(name, function) for name, function in users)]
    known = [metric.name for metric in found]
    if twice := next((name for name in known if known.count(name) > 1), None):
        raise PipeError(f"Two metrics are called {twice}.", "Rename yours.")
    return tuple(found)


def _of_user(name: str, function: UserMetric) -> Metric:
    """A mean of what the function says of each reply."""

    def of(measured: Measured) -> Statistics:
        return function(measured.item.row, measured.answer.text), 1

    return Metric(name, "higher", "reply", of, ratio)
