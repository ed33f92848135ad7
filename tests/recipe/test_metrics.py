"""The metric that decides is the recipe's own, where a single answer has it."""

import pytest

from pipeline.evaluate.metrics import METRICS
from pipeline.recipe.metrics import KNOWN, deciding_metric
from tests.support.exported import demo


@pytest.mark.parametrize(
    ("asked", "decides"),
    [
        ("", "exact_match"),
        ("mae,r2", "mae"),
        ("r2,rmsle,hit_rate,mae", "hit_rate"),
        ("rmsle", "exact_match"),
        ("my_own,mae", "my_own"),
    ],
)
def test_the_first_that_says_something_of_one_answer_decides(asked: str, decides: str) -> None:
    assert deciding_metric(demo(f"eval.metrics=[{asked}]")) == decides


def test_every_metric_that_is_known_is_measured() -> None:
    assert [metric.name for metric in METRICS] == list(KNOWN)
