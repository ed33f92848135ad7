"""Quantization by hand: round trips within half a step, the same codes the second time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.study.explain import numbers
from pipeline.study.explain.numbers import (
    FP4_LEVELS,
    GROUP,
    METHODS,
    NF4_LEVELS,
    absmax_int8,
    double_quantize,
    dynamic_levels,
    float_levels,
    from_absmax_int8,
    from_blocks,
    from_zero_point_int8,
    normal_levels,
    quantize_blocks,
    relative_error,
    zero_point_int8,
)


@st.composite
def matrix(draw):
    """Normal weights of any size, some rows leaning to one side, some weights zero."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 200)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights = random.normal(draw(st.sampled_from([0, 1, -3])), 1, shape)
    weights[random.random(shape) < draw(st.sampled_from([0, 0.2, 1]))] = 0
    return (weights * 10.0 ** draw(st.integers(-6, 3))).astype(np.float32)


matrices = matrix()
tables = st.sampled_from([NF4_LEVELS, FP4_LEVELS, dynamic_levels()])


def normal(rows=64, columns=1024):
    return np.random.default_rng(1).normal(0, 0.02, (rows, columns)).astype(np.float32)


@given(matrices)
def test_absmax_int8_errs_by_half_a_step_at_most(weights):
    codes, scales = absmax_int8(weights)
    error = np.abs(from_absmax_int8(codes, scales) - weights)
    assert (error <= scales[:, None] * 0.501).all()
    assert np.abs(codes.astype(int)).max() <= 127
    assert (codes[weights == 0] == 0).all()


@given(matrices)
def test_zero_point_int8_errs_by_a_step_at_most_and_keeps_zero(weights):
    """Half a step for rounding, and half a step that rounding the zero point may cut off."""
    codes, scales, zeros = zero_point_int8(weights)
    back = from_zero_point_int8(codes, scales, zeros)
    assert (np.abs(back - weights) <= scales[:, None] * 1.002).all()
    assert (back[weights == 0] == 0).all()


@given(matrices, tables)
def test_no_level_is_nearer_than_the_one_that_was_chosen(weights, levels):
    codes, absmax = quantize_blocks(weights, levels)
    each = np.repeat(absmax, numbers.BLOCK)[: weights.size].astype(np.float64)
    flat = weights.reshape(-1).astype(np.float64)
    off = np.abs(levels[None, :] * each[:, None] - flat[:, None])
    chosen = off[np.arange(flat.size), codes]
    assert (chosen <= off.min(axis=1) + 1e-6 * each).all()


@given(matrices, st.sampled_from(list(METHODS)))
def test_what_came_back_is_not_rounded_again(weights, method):
    """But for a range that rounding moved: of the row's ends, or of the scales of all blocks."""
    once = METHODS[method](weights)
    twice = METHODS[method](once.restored)
    tolerance = {"int8-zero-point": 0.01, "nf4-double": 0.05}.get(method, 1e-5)
    size = np.abs(weights).max() or 1.0
    np.testing.assert_allclose(twice.restored, once.restored, rtol=0, atol=tolerance * size)


@given(matrices, st.sampled_from(["int8-absmax", "int8-zero-point"]))
def test_int8_codes_keep_the_order_of_a_row(weights, method):
    codes = METHODS[method](weights).codes.astype(int)
    for row, found in zip(weights, codes, strict=True):
        assert (np.diff(found[np.argsort(row, kind="stable")]) >= 0).all()


@given(st.integers(-10, 10), tables)
def test_a_larger_block_gets_the_same_codes_and_a_larger_scale(exponent, levels):
    """By a power of two, which changes no rounding."""
    power = np.float32(2.0**exponent)
    weights = normal(4, 256)
    codes, absmax = quantize_blocks(weights, levels)
    more, larger = quantize_blocks(weights * power, levels)
    np.testing.assert_array_equal(codes, more)
    np.testing.assert_array_equal(absmax * power, larger)


def test_a_block_of_zeros_comes_back_as_zeros():
    for method in METHODS.values():
        assert not np.abs(method(np.zeros((2, 128), np.float32)).restored).any()


def test_nf4_is_made_of_normal_quantiles():
    """As published, to the last bit of fp32 but one."""
    np.testing.assert_allclose(normal_levels(), NF4_LEVELS, rtol=0, atol=1.2e-7)
    assert NF4_LEVELS[[0, 7, 15]].tolist() == [-1, 0, 1]


def test_between_two_levels_of_nf4_lies_about_the_same_share_of_normal_weights():
    """Of weights that are scaled to the outermost quantile, as the levels were made."""
    from statistics import NormalDist

    largest = NormalDist().inv_cdf(0.9677083)
    between = largest * (NF4_LEVELS[:-1] + NF4_LEVELS[1:]) / 2
    below = [0.0, *(NormalDist().cdf(float(each)) for each in between), 1.0]
    inner = np.diff(below)[1:-1]
    assert inner.min() > 0.05 and inner.max() < 0.075


def test_fp4_is_a_floating_point_number_whose_exponent_counts_down():
    np.testing.assert_array_equal(float_levels(), FP4_LEVELS)
    assert (FP4_LEVELS * 12).round(4).tolist()[:8] == [0, 0.0625, 8, 12, 4, 6, 2, 3]


def test_dynamic_levels_are_256_ascending_with_zero():
    levels = dynamic_levels()
    assert len(levels) == 256 and (np.diff(levels) > 0).all() and 0 in levels and levels[-1] == 1


def test_a_double_quantized_scale_is_off_by_half_the_widest_gap_at_most():
    absmax = np.abs(normal(1024, 64)).max(axis=1)
    double = double_quantize(absmax)
    gap = np.diff(dynamic_levels()).max() / 2 * np.repeat(double.absmax, GROUP)
    assert (np.abs(double.restored() - absmax) <= gap * 1.01).all()


def test_nf4_beats_fp4_on_normal_weights_and_double_quantization_costs_next_to_nothing():
    weights = normal()
    error = {name: relative_error(weights, METHODS[name](weights).restored) for name in METHODS}
    assert error["nf4"] < 0.8 * error["fp4"]
    assert error["nf4-double"] == pytest.approx(error["nf4"], rel=0.005)
    assert error["int8-absmax"] < 0.1 * error["nf4"]


def test_one_outlier_spoils_a_row_of_int8_but_only_its_own_block_of_nf4():
    weights = normal(1, 1024)
    spoilt = weights.copy()
    spoilt[0, 100] = 2.0
    far = np.r_[0:64, 128:1024]
    for method, worse in (("int8-absmax", 10), ("nf4", 1.0001)):
        before, after = (METHODS[method](each).restored[0, far] for each in (weights, spoilt))
        ratio = relative_error(weights[0, far], after) / relative_error(weights[0, far], before)
        assert (ratio > worse) if method == "int8-absmax" else (ratio <= worse)


def test_the_zero_point_pays_where_a_row_leans():
    """Twice as many levels for weights of one sign, so half the step."""
    leaning = np.abs(normal(8, 512))
    errors = [
        relative_error(leaning, METHODS[name](leaning).restored)
        for name in ("int8-absmax", "int8-zero-point")
    ]
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.05)


def test_bits_count_the_scales():
    weights = normal(2, 512)
    bits = {name: method(weights).bits for name, method in METHODS.items()}
    assert bits == {
        "int8-absmax": 8 + 32 / 512,
        "int8-zero-point": 8 + 40 / 512,
        "nf4": 4.5,
        "nf4-double": pytest.approx(4.127, abs=0.0005),
        "fp4": 4.5,
    }


@given(matrices)
def test_blocks_come_back_in_the_order_they_went_in(weights):
    codes, absmax = quantize_blocks(weights, np.array([-1, 0, 1], np.float32))
    back = from_blocks(codes, absmax, np.array([-1, 0, 1], np.float32))
    flat = weights.reshape(-1)
    largest = np.abs(flat) == np.repeat(absmax, numbers.BLOCK)[: flat.size]
    np.testing.assert_array_equal(back[largest], flat[largest])
