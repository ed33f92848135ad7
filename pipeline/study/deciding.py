"""The metric that decides in a study: the recipe's own, not always exact match."""

from pipeline.evaluate.metrics import METRICS
from pipeline.recipe import Recipe
from pipeline.report.compare_words import EXACT_MATCH

_WHOLE = {metric.name for metric in METRICS if not metric.each}


def deciding_metric(recipe: Recipe) -> str:
    """The first of eval.metrics that says something of one answer alone, else exact match.

    One that only all answers have together, such as R2, has no paired test.
    """
    return next((name for name in recipe.eval.metrics if name not in _WHOLE), EXACT_MATCH)
