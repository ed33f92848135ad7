"""Sources are mixed in the ratio of their weights, from the first row to the last."""

from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.choose.mixture import chosen, drawn, interleave

COUNTS = st.lists(st.integers(0, 60), max_size=8)
WEIGHTED = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from([0.1, 0.3, 0.5, 1.0, 1.5, 2.0, 7.0, 100.0])),
    min_size=1,
    max_size=6,
)


def test_without_weights_every_row_is_taken():
    assert drawn([5, 0, 7], None) == [5, 0, 7]


def test_the_scarcest_source_gives_all_and_the_others_in_proportion():
    assert drawn([1000, 1000, 90], [0.5, 0.2, 0.3]) == [150, 60, 90]
    assert drawn([1000, 1000, 1000], [2, 1, 1]) == [1000, 500, 500]


def test_weights_are_the_decimals_that_were_written():
    assert drawn([100, 1000], [0.1, 0.3]) == [100, 300]
    assert drawn([7, 1000], [0.7, 1.1]) == [7, 11]


def test_a_source_without_rows_holds_nothing_back():
    assert drawn([0, 30, 20], [1, 1, 2]) == [0, 10, 20]
    assert drawn([0, 0], [1, 2]) == [0, 0]


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_a_weight_that_is_none_is_refused(weights):
    with pytest.raises(ValueError, match="one positive weight a source"):
        drawn([1, 2], weights)


@given(WEIGHTED)
def test_what_is_drawn_is_there_in_proportion_and_cannot_be_more(sources):
    counts, weights = zip(*sources, strict=True)
    takes = drawn(counts, weights)
    exact = [Fraction(str(weight)) for weight in weights]
    held = [place for place, count in enumerate(counts) if count]
    assert all(take <= count for take, count in zip(takes, counts, strict=True))
    assert not held or any(takes[place] == counts[place] for place in held)
    for one in held:
        for other in held:
            assert abs(takes[one] / exact[one] - takes[other] / exact[other]) < 1 / min(
                exact[one], exact[other]
            )


def test_the_smallest_draws_are_chosen_in_the_order_of_the_rows():
    draws = np.array([50, 10, 2**64 - 1, 30, 20], np.uint64)
    assert chosen(draws, 3).tolist() == [False, True, False, True, True]


def test_of_equal_draws_the_first_rows_are_chosen():
    assert chosen(np.array([5, 9, 5, 1, 5], np.uint64), 3).tolist() == [
        True,
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("take", [-1, 4])
def test_rows_that_are_not_there_cannot_be_chosen(take):
    with pytest.raises(ValueError, match=f"{take} of 3 rows"):
        chosen(np.array([1, 2, 3], np.uint64), take)


@given(st.lists(st.integers(0, 5)), st.data())
def test_a_smaller_sample_is_part_of_a_larger_one(values, data):
    draws = np.array(values, np.uint64)
    more = data.draw(st.integers(0, len(values)))
    fewer = data.draw(st.integers(0, more))
    taken = chosen(draws, more)
    assert taken.sum() == more
    assert (chosen(draws, fewer) <= taken).all()
    assert draws[taken].max(initial=0) <= draws[~taken].min(initial=2**63)


def test_sources_are_interleaved_evenly():
    assert list(interleave([6, 3, 1])) == [0, 1, 0, 0, 1, 0, 0, 2, 1, 0]
    assert list(interleave([2, 2])) == [0, 1, 0, 1]
    assert list(interleave([0, 3, 0])) == [1, 1, 1]
    assert list(interleave([])) == []


@settings(deadline=None)
@given(COUNTS)
def test_every_beginning_holds_the_ratio_within_one_row(counts):
    rows, given_so_far = sum(counts), [0] * len(counts)
    for length, source in enumerate(interleave(counts), 1):
        given_so_far[source] += 1
        for count, taken in zip(counts, given_so_far, strict=True):
            assert abs(taken * rows - length * count) < rows
    assert given_so_far == counts


def test_many_small_sources_do_not_come_all_at_once():
    order = list(interleave([1000] + [1] * 9))
    apart = np.diff([place for place, source in enumerate(order) if source])
    assert apart.min() > 50


def test_a_mixture_of_millions_begins_at_once():
    assert list(islice(interleave([10**9, 10**9 // 2]), 6)) == [0, 1, 0, 0, 1, 0]
