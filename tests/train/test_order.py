"""Which rows a step takes: every row once an epoch, whatever the batches are cut into."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.train.order import Order, Rows, bins_of, order_of

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=300).map(np.array)


def order(
    lengths: Rows,
    batch: int,
    epochs: float = 1,
    steps: int | None = None,
    seed: int = 1,
    grouped: bool = False,
) -> Order:
    return order_of(lengths, batch, epochs=epochs, max_steps=steps, seed=seed, grouped=grouped)


@given(LENGTHS, st.integers(1, 40), st.integers(1, 4), st.integers(0, 9), st.booleans())
def test_every_row_comes_once_an_epoch(
    lengths: Rows, batch: int, epochs: int, seed: int, grouped: bool
) -> None:
    made = order(lengths, batch, epochs, seed=seed, grouped=grouped)
    count = len(lengths)
    assert made.steps.shape == (math.ceil(epochs * count / batch), batch)
    times = np.bincount(made.steps.ravel(), minlength=count)
    surplus = made.steps.size - epochs * count
    assert 0 <= surplus < batch
    # what fills the last step up are other rows than one another, once more each
    assert times.min() >= epochs + surplus // count
    assert times.max() <= epochs + math.ceil(surplus / count)
    if not grouped:
        for epoch in range(epochs):
            rows = made.steps.ravel()[epoch * count : (epoch + 1) * count]
            assert sorted(rows) == list(range(count))


@given(LENGTHS, st.integers(1, 8), st.integers(0, 9), st.booleans())
def test_it_is_drawn_by_the_seed_alone(lengths: Rows, batch: int, seed: int, grouped: bool) -> None:
    made = order(lengths, batch, seed=seed, grouped=grouped)
    assert (made.steps == order(lengths, batch, seed=seed, grouped=grouped).steps).all()
    if len(lengths) > 20 and not grouped:
        assert (made.steps != order(lengths, batch, seed=seed + 1).steps).any()


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(20, 99))
def test_a_step_takes_the_same_rows_however_processes_and_micro_batches_cut_it(
    processes: int, rows: int, accumulation: int, count: int
) -> None:
    """As accelerate deals them out: micro-batches in turn, one to each process."""
    batch = processes * rows * accumulation
    made = order(np.ones(count, np.int64), batch)
    flat = made.flat()
    micro = [flat[start : start + rows] for start in range(0, len(flat), rows)]
    for step in range(1, len(made.steps) + 1):
        first = (step - 1) * accumulation * processes
        dealt = [
            row
            for turn in range(accumulation)
            for process in range(processes)
            for row in micro[first + turn * processes + process]
        ]
        assert dealt == made.rows_of(step)


@given(LENGTHS, st.integers(1, 8), st.integers(1, 30), st.booleans())
def test_max_steps_takes_the_place_of_epochs(
    lengths: Rows, batch: int, steps: int, grouped: bool
) -> None:
    made = order(lengths, batch, 9.0, steps, grouped=grouped)
    assert made.steps.shape == (steps, batch)
    if not grouped:  # a longer training begins with the same steps
        assert (order(lengths, batch, 9.0, steps + 1).steps[:steps] == made.steps).all()


def test_a_share_of_an_epoch_is_a_share_of_its_steps() -> None:
    lengths = np.ones(100, np.int64)
    assert len(order(lengths, 10, 0.3).steps) == 3
    assert len(order(lengths, 10, 0.001).steps) == 1
    assert len(order(lengths, 10, 0.1 + 0.2).steps) == 3  # 0.30000000000000004


@given(LENGTHS, st.integers(2, 16))
def test_grouped_steps_waste_less_and_the_longest_comes_first(lengths: Rows, batch: int) -> None:
    def padded(steps: Rows) -> int:
        return int(lengths[steps].max(axis=1).sum() * batch)

    grouped, shuffled = order(lengths, batch, grouped=True), order(lengths, batch)
    longest = lengths[grouped.steps].max(axis=1)
    assert longest[0] == longest.max()
    # the same rows of each window, sorted: no order of them pads less
    assert sorted(grouped.steps.ravel()) == sorted(shuffled.steps.ravel())
    assert padded(grouped.steps) <= padded(shuffled.steps)


@given(LENGTHS, st.integers(1, 16))
def test_tokens_are_those_of_the_rows_so_far(lengths: Rows, batch: int) -> None:
    made = order(lengths, batch, 2)
    seen = made.tokens(lengths)
    assert len(seen) == len(made.steps)
    assert seen[-1] == sum(int(lengths[row]) for row in made.flat())
    assert seen[0] == sum(int(lengths[row]) for row in made.rows_of(1))


@given(LENGTHS, st.integers(1, 700))
def test_every_row_is_in_one_bin_and_no_bin_is_over_full(lengths: Rows, capacity: int) -> None:
    bins = bins_of(lengths, capacity)
    assert sorted(row for each in bins for row in each) == list(range(len(lengths)))
    for each in bins:
        assert len(each) == 1 or sum(lengths[each]) <= capacity


@given(LENGTHS, st.integers(1, 700))
def test_bins_are_as_few_as_first_fit_decreasing_promises(lengths: Rows, capacity: int) -> None:
    """11/9 of the best and 6/9 (Dosa 2007, for both), the best being no less than the volume."""
    bins = bins_of(lengths, capacity)
    fitting = lengths[lengths <= capacity]
    over = len(lengths) - len(fitting)
    halves = int((fitting * 2 > capacity).sum())
    least = max(math.ceil(fitting.sum() / capacity), halves)
    first_fit = _first_fit_decreasing(fitting, capacity)
    assert over + least <= len(bins) <= over + 11 / 9 * first_fit + 6 / 9
    # no two bins could have been one: else the later one's first row had fitted the earlier
    sums = sorted(int(sum(lengths[each])) for each in bins)
    assert len(sums) < 2 or sums[0] + sums[1] > capacity


def _first_fit_decreasing(lengths: Rows, capacity: int) -> int:
    room: list[int] = []
    for size in sorted(map(int, lengths), reverse=True):
        place = next((n for n, free in enumerate(room) if free >= size), None)
        if place is None:
            room.append(capacity - size)
        else:
            room[place] -= size
    return len(room)


def test_bins_fill_a_long_context_almost_wholly() -> None:
    lengths = np.random.default_rng(0).integers(50, 1500, 5000)
    bins = bins_of(lengths, 4096)
    assert lengths.sum() / (len(bins) * 4096) > 0.995
    assert bins == bins_of(lengths, 4096)
