"""The table of metrics: what each takes of a reply, how items add up, and which way is better."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Literal

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
from pipeline.recipe.metrics import KNOWN

Floats = NDArray[np.float64]
Statistics = Sequence[float] | None
"""What one reply adds; None where the metric says nothing of it."""
Needs = Literal["reply", "reference", "own reply", "log-probabilities"]


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
    needs: Needs
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


def _own(
    name: str,
    needs: Needs,
    of: Callable[[Measured], Statistics],
    aggregate: Callable[[Floats], Floats] = ratio,
    width: int = 2,
) -> Metric:
    """One of ours."""
    return Metric(needs=needs, of=of, aggregate=aggregate, width=width, **asdict(KNOWN[name]))


def _number_metric(
    name: str,
    of: Callable[[float, float], Sequence[float]],
    aggregate: Callable[[Floats], Floats] = ratio,
    width: int = 2,
) -> Metric:
    """One of (number said, true number). A reply that the limit cut has said its number before."""

    def measured(each: Measured) -> Statistics:
        true = true_number(each.item)
        return None if true is None else of(said_number(each.answer.answer), true)

    return _own(name, "reference", measured, aggregate, width)


METRICS: tuple[Metric, ...] = (
    _own("exact_match", "reference", _exact_match),
    _own("well_formed", "reply", _well_formed),
    _own("truncated", "reply", lambda m: (not m.answer.stopped, 1)),
    _own("wrong", "reference", _wrong),
    _own("cross_entropy", "log-probabilities", _loss),
    _own("perplexity", "log-probabilities", _loss, perplexity),
    # the answer alone, against the row's own: two trains of thought may share few words
    _own("rouge_l", "own reply", _rouge),
    _own("bleu", "own reply", _bleu, bleu_of, BLEU_WIDTH),
    _own("reply_tokens", "reply", lambda m: (m.answer.tokens, 1)),
    _own("thinking_tokens", "reply", lambda m: (m.thinking_tokens, 1)),
    _own("repetition", "reply", lambda m: (repetition(m.answer.text), 1)),
    _number_metric("mae", lambda said, true: (absolute_error(said, true), 1)),
    _number_metric("rmsle", lambda said, true: (squared_log_error(said, true), 1), root_of_mean),
    _number_metric("hit_rate", lambda said, true: (is_hit(said, true), 1)),
    _number_metric("within_20_percent", lambda said, true: (is_near(said, true), 1)),
    _number_metric("r2", r2_statistics, r2_of, R2_WIDTH),
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
