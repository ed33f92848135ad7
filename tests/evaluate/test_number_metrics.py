"""Errors of numbers: read from replies, and added up as their formulas say."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipeError
from pipeline.evaluate.items import Item
from pipeline.evaluate.metrics import METRICS, Metric, all_metrics
from pipeline.evaluate.number_metrics import is_hit, is_near, number_in, r2_of, said_number
from pipeline.evaluate.results import Scores
from tests.evaluate.support import measured

NAMES = ("mae", "rmsle", "hit_rate", "within_20_percent", "r2")
BY_NAME = {metric.name: metric for metric in METRICS}
PRICES = st.lists(
    st.tuples(st.integers(0, 999), st.integers(1, 999)), min_size=2, max_size=30
).filter(lambda pairs: len({true for _, true in pairs}) > 1)


def item(true: object) -> Item:
    row = {"id": f"p{true}", "question": "A blue cup.", "answer": str(true)}
    return Item(f"p{true}", row, str(true))


def figure(metric: Metric, pairs: list[tuple[object, object]]) -> float:
    """Of (reply, true number)."""
    found = [metric.of(measured(item(true), str(said))) for said, true in pairs]
    return float(metric.aggregate(np.sum(found, axis=0, dtype=float)[None])[0])


@given(PRICES)
def test_the_figures_are_those_of_their_formulas(pairs: list[tuple[int, int]]) -> None:
    said, true = np.array(pairs, float).T
    assert figure(BY_NAME["mae"], pairs) == pytest.approx(np.abs(said - true).mean())
    logs = np.log1p(said) - np.log1p(true)
    assert figure(BY_NAME["rmsle"], pairs) == pytest.approx(math.sqrt((logs**2).mean()))
    errors = ((said - true) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    assert figure(BY_NAME["r2"], pairs) == pytest.approx(1 - errors, rel=1e-6, abs=1e-6)


def test_by_hand() -> None:
    pairs = [(100, 150), (10, 10), (39, 0), (500, 590)]
    assert figure(BY_NAME["mae"], pairs) == pytest.approx((50 + 0 + 39 + 90) / 4)
    # 50 off of 150 is neither within 40 nor within 30; 90 off of 590 is within 118
    assert figure(BY_NAME["hit_rate"], pairs) == 0.75
    assert figure(BY_NAME["within_20_percent"], pairs) == 0.5


@pytest.mark.parametrize(
    ("said", "true", "hit", "near"),
    [
        (39.99, 0, True, False),
        (40, 0, False, False),
        (0, 0, True, True),
        (80, 100, True, False),
        (80.01, 100, True, True),
        (401, 500, True, True),
        (400, 500, False, False),
        (600, 500, False, False),
    ],
)
def test_a_bound_itself_is_no_hit(said: float, true: float, hit: bool, near: bool) -> None:
    assert (is_hit(said, true), is_near(said, true)) == (hit, near)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("27", 27),
        ("27.00", 27),
        ("Price is $1,299.50", 1299.5),
        ("$3", 3),
        ("It costs 12, or 15 with tax.", 12),
        ("USB-3 hub", 3),
        ("$.99", 0.99),
        ("-.5", -0.5),
        ("version 1.2.3", 1.2),
        ("-5", -5),
        ("cheap", None),
        ("", None),
        ("9" * 400, None),
    ],
)
def test_the_first_number_of_a_text_is_what_it_says(text: str, number: float | None) -> None:
    assert number_in(text) == number


@given(st.text())
def test_any_reply_says_an_amount(text: str) -> None:
    assert 0 <= said_number(text) <= 1e9


def test_a_reply_without_a_number_costs_the_whole_amount() -> None:
    assert figure(BY_NAME["mae"], [("I do not know.", 80), ("-12", 20)]) == 50


def test_a_number_is_said_also_where_the_limit_cut_the_reply() -> None:
    found = BY_NAME["mae"].of(measured(item(20), "25 dollars and", stopped=False))
    assert found == (5.0, 1)


def test_an_open_thinking_block_has_said_nothing_yet() -> None:
    assert BY_NAME["mae"].of(measured(item(20), "<think>\n20 or 21")) == (20.0, 1)


@pytest.mark.parametrize("reference", ["cheap", "-3"])
def test_an_item_that_is_no_amount_does_not_count(reference: str) -> None:
    assert all(BY_NAME[name].of(measured(item(reference), "20")) is None for name in NAMES)


def test_r2_of_equal_numbers_is_none_and_of_their_mean_zero() -> None:
    assert np.isnan(r2_of(np.array([[3.0, 0.3, 0.03, 0.5]]))[0])
    assert figure(BY_NAME["r2"], [(20, 10), (20, 30)]) == 0
    assert figure(BY_NAME["r2"], [(10, 10), (30, 30)]) == 1
    assert figure(BY_NAME["r2"], [(30, 10), (10, 30)]) == -3


def test_they_are_measured_only_where_they_are_asked_for() -> None:
    assert not {metric.name for metric in all_metrics((), ())} & set(NAMES)
    asked = [metric.name for metric in all_metrics(("mae", "r2"), ())]
    assert [name for name in asked if name in NAMES] == ["mae", "r2"]


def test_a_metric_of_ones_own_may_not_take_their_name(tmp_path: Path) -> None:
    own = tmp_path / "mae.py"
    own.write_text("def metric(row, reply):\n    return 0.0\n")
    with pytest.raises(PipeError, match="Two metrics are called mae"):
        all_metrics(("mae",), (own,))
    assert "mae" in [metric.name for metric in all_metrics((), (own,))]


def test_each_has_an_interval_around_its_value() -> None:
    true = [10 + 7 * number % 90 for number in range(60)]
    replies = [
        measured(item(price), str(price + (number % 9) - 4)) for number, price in enumerate(true)
    ]
    scores = Scores({"adapter": replies}, all_metrics(NAMES, ()), 1, 3407).engines()["adapter"]
    for name in NAMES:
        found = scores[name]
        assert found["low"] <= found["value"] <= found["high"]
        assert found["low"] < found["high"] or found["value"] == 1.0
    assert scores["r2"]["low"] > 0.9
