"""Intervals."""

import pytest

from pipeline.evaluate.grade import wilson


@pytest.mark.parametrize(
    ("hits", "items", "low", "high"),
    # reference values: statsmodels.stats.proportion.proportion_confint(method="wilson")
    [(8, 10, 0.49016, 0.94332), (0, 250, 0.0, 0.01513), (250, 250, 0.98487, 1.0)],
)
def test_wilson(hits: int, items: int, low: float, high: float) -> None:
    share = wilson(hits, items)
    assert share.value == hits / items
    assert share.low == pytest.approx(low, abs=1e-4)
    assert share.high == pytest.approx(high, abs=1e-4)
