"""What is known of each of our metrics before anything is measured, and which one decides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.recipe.schema import Recipe

EXACT_MATCH = "exact_match"


@dataclass(frozen=True)
class KnownMetric:
    """One of ours; how it is measured stands in `evaluate.metrics`."""

    name: str
    better: Literal["higher", "lower", "neither"]
    is_share: bool = False
    """A yes or no for each reply: 0 or 1, counted once."""
    each: bool = True
    """Whether one reply has a value worth keeping."""
    on_request: bool = False
    """Measured only where eval.metrics names it."""


_ALL = (
    KnownMetric(EXACT_MATCH, "higher", is_share=True),
    KnownMetric("well_formed", "higher", is_share=True),
    KnownMetric("truncated", "lower", is_share=True),
    KnownMetric("wrong", "lower", is_share=True),
    KnownMetric("cross_entropy", "lower"),
    KnownMetric("perplexity", "lower", each=False),
    KnownMetric("rouge_l", "higher"),
    KnownMetric("bleu", "higher", each=False),
    KnownMetric("reply_tokens", "neither"),
    KnownMetric("thinking_tokens", "neither"),
    KnownMetric("repetition", "lower"),
    KnownMetric("mae", "lower", on_request=True),
    KnownMetric("rmsle", "lower", each=False, on_request=True),
    KnownMetric("hit_rate", "higher", is_share=True, on_request=True),
    KnownMetric("within_20_percent", "higher", is_share=True, on_request=True),
    KnownMetric("r2", "higher", each=False, on_request=True),
)
KNOWN = {each.name: each for each in _ALL}
"""Name -> what is known, in the order in which they are told. A user's own is not among them."""


def deciding_metric(recipe: Recipe) -> str:
    """The metric that decides which model is better."""
    return deciding_of(recipe.eval.metrics)


def deciding_of(asked: Sequence[str]) -> str:
    """The first of eval.metrics that says something of one answer alone, else exact match.

    One that only all answers have together, such as R2, has no paired test.
    """
    return next((name for name in asked if has_each(name)), EXACT_MATCH)


def has_each(name: str) -> bool:
    """Whether one reply has a value; of a user's own metric it has."""
    return name not in KNOWN or KNOWN[name].each
