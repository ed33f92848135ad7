"""Intervals that hold what they promise, and tests whose p is right."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate import intervals


@pytest.mark.parametrize(
    ("hits", "items", "low", "high"),
    # reference values: statsmodels.stats.proportion.proportion_confint(method="wilson")
    [(8, 10, 0.49016, 0.94332), (0, 250, 0.0, 0.01513), (250, 250, 0.98487, 1.0)],
)
def test_wilson(hits: int, items: int, low: float, high: float) -> None:
    assert intervals.wilson(hits, items) == (
        pytest.approx(low, abs=1e-4),
        pytest.approx(high, abs=1e-4),
    )


@pytest.mark.parametrize("share", [0.5, 0.84])
def test_the_interval_holds_the_true_share_about_as_often_as_it_says(share: float) -> None:
    """400 runs of 100 items: 95% by name, 92% to 97% in truth."""
    random = np.random.default_rng(7)
    right = (random.random((100, 400)) < share).astype(float)
    sums = intervals.resampled_sums(right, seed=1, resamples=2000)
    ranges = [intervals.percentile_range(column / 100) for column in sums.T]
    covered = np.mean([low <= share <= high for low, high in ranges])
    assert 0.92 <= covered <= 0.975
    misses = [low > share for low, _ in ranges], [high < share for _, high in ranges]
    assert all(0.005 <= np.mean(side) <= 0.055 for side in misses)


def test_the_difference_of_two_columns_is_resampled_in_pairs() -> None:
    random = np.random.default_rng(3)
    hard = random.normal(size=200)
    both = np.stack([hard, hard + 0.1], axis=1)
    sums = intervals.resampled_sums(both, seed=1) / 200
    low, high = intervals.percentile_range(sums[:, 1] - sums[:, 0])
    assert low == pytest.approx(0.1) and high == pytest.approx(0.1)
    assert np.ptp(sums[:, 0]) > 0.1


def test_equal_seeds_draw_equally_and_others_do_not() -> None:
    values = np.arange(50.0)[:, None]
    once = intervals.resampled_sums(values, 1, 100)
    assert (once == intervals.resampled_sums(values, 1, 100)).all()
    assert (once != intervals.resampled_sums(values, 2, 100)).any()


def test_drawing_in_parts_draws_every_item_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "_CELLS", 70)
    sums = intervals.resampled_sums(np.eye(10), 5, 3000)
    assert (sums.sum(axis=1) == 10).all()
    assert sums.mean(axis=0) == pytest.approx(np.ones(10), abs=0.08)


def test_a_resample_in_which_nothing_counts_is_left_out() -> None:
    values = np.array([0.25, np.nan, 0.25])
    assert intervals.percentile_range(values) == (0.25, 0.25)


def test_mcnemar_knows_only_those_who_changed() -> None:
    one = np.array([True] * 90 + [False] * 10)
    other = one.copy()
    other[90:98] = True  # eight gained
    other[0] = False  # one lost
    # exact: P(at most 1 of 9) twice = 2 x 10 / 512
    assert intervals.mcnemar(one, other) == pytest.approx(20 / 512)
    assert intervals.mcnemar(one, one) == 1.0


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
def test_few_items_get_the_exact_sign_flip(differences: list[int]) -> None:
    values = np.array(differences, dtype=float)
    flips = [abs(np.dot(signs, values)) for signs in product((1, -1), repeat=len(values))]
    exact = float(np.mean([flip >= abs(values.sum()) - 1e-9 for flip in flips]))
    assert intervals.sign_flip(values, seed=1) == pytest.approx(exact)


def test_sign_flip_tells_a_change_from_chance() -> None:
    random = np.random.default_rng(11)
    chance = random.normal(size=200)
    assert intervals.sign_flip(chance - chance.mean() + 0.02, seed=1) > 0.5
    assert intervals.sign_flip(chance + 0.5, seed=1) < 0.001


@pytest.mark.parametrize(
    ("gained", "lost", "items", "low", "high"),
    # the first as in Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014) 2850-2875
    [(1, 7, 21, -0.517, -0.026), (0, 0, 250, -0.01513, 0.01513)],
)
def test_tango(gained: int, lost: int, items: int, low: float, high: float) -> None:
    assert intervals.tango(gained, lost, items) == (
        pytest.approx(low, abs=5e-4),
        pytest.approx(high, abs=5e-4),
    )


@pytest.mark.parametrize(("gains", "losses"), [(0.05, 0.05), (0.1, 0.02), (0.0, 0.05), (0.5, 0.4)])
def test_tango_holds_the_true_change_at_least_as_often_as_it_says(
    gains: float, losses: float
) -> None:
    """Over every outcome of 20 items, by its probability."""
    covered = 0.0
    for up in range(21):
        for down in range(21 - up):
            low, high = intervals.tango(up, down, 20)
            ways = comb(20, up) * comb(20 - up, down)
            chance = ways * gains**up * losses**down * (1 - gains - losses) ** (20 - up - down)
            covered += chance * (low <= gains - losses <= high)
    assert 0.93 < covered <= 1


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
def test_tango_is_about_its_estimate_and_the_same_turned_around(
    gained: int, lost: int, same: int
) -> None:
    items = gained + lost + same
    low, high = intervals.tango(gained, lost, items)
    assert -1 <= low < (gained - lost) / items < high <= 1
    assert intervals.tango(lost, gained, items) == (-high, -low)


def test_one_hit_is_no_surer_than_none() -> None:
    widths = []
    for hits in (0, 1, 2, 9):
        low, high = intervals.share_interval(np.array([1.0] * hits + [0.0] * (50 - hits)), seed=1)
        widths.append(high - low)
    assert widths == sorted(widths) and len(set(widths)) == 4


def test_one_change_is_no_surer_than_none() -> None:
    none, one = (
        intervals.change_interval(np.array([1.0] * gains + [0.0] * (50 - gains)), seed=1)
        for gains in (0, 1)
    )
    assert none[0] == -none[1] and one[0] < 0 and one[1] - one[0] > none[1] - none[0]


def test_many_on_both_sides_and_shares_between_are_resampled() -> None:
    half = np.array([0.0, 1.0] * 25)
    assert intervals.share_interval(half, 1) != intervals.wilson(25, 50)
    assert intervals.share_interval(half, 1, lambda: np.array([0.25])) == (0.25, 0.25)
    assert intervals.change_interval(half / 2, 1, lambda: np.array([0.25])) == (0.25, 0.25)


def test_where_no_resample_has_a_value_there_is_no_interval() -> None:
    assert np.isnan(intervals.percentile_range(np.array([np.nan, -np.inf]))).all()
