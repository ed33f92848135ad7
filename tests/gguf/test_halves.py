"""Conversions to and from 16-bit floats, and merge arithmetic: one answer, bit for bit."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gguf.kernels.halves import bf16_to_fp32, fp16_to_fp32, fp32_to_bf16, fp32_to_fp16
from pipeline.gguf.kernels.merge import add_low_rank, finite, scale_rows, squared_norms
from tests.gguf.reference import reference

_F32 = npt.NDArray[np.float32]
_U16 = npt.NDArray[np.uint16]

ALL_HALVES = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
BOUNDARIES = np.array([0, 1, 0x7FF, 0x800, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF])


def _rounded(type: str, values: _F32) -> _U16:
    out = np.empty(values.size, np.uint16)
    (fp32_to_bf16 if type == "BF16" else fp32_to_fp16)(values, out)
    return out


def _ggml(type: str, values: _F32) -> _U16:
    return reference(type, values.reshape(1, -1)).reshape(-1).view(np.uint16)


def _widened(type: str, bits: _U16) -> _F32:
    out = np.empty(bits.size, np.float32)
    (bf16_to_fp32 if type == "BF16" else fp16_to_fp32)(bits, out)
    return out


def test_every_bf16_widens_to_its_own_bits() -> None:
    widened = _widened("BF16", ALL_HALVES).view(np.uint32)
    assert np.array_equal(widened, ALL_HALVES.astype(np.uint32) << 16)


def test_every_fp16_widens_to_its_value() -> None:
    widened, expected = _widened("FP16", ALL_HALVES), ALL_HALVES.view(np.float16).astype(np.float32)
    number = ~np.isnan(expected)
    assert np.array_equal(widened[number].view(np.uint32), expected[number].view(np.uint32))
    assert np.isnan(widened[~number]).all()


@pytest.mark.parametrize("type", ["BF16", "F16"])
def test_widening_and_rounding_again_gives_every_number_back(type: str) -> None:
    widened = _widened(type, ALL_HALVES)
    number = ~np.isnan(widened)
    assert np.array_equal(_rounded(type, widened)[number], ALL_HALVES[number])


@pytest.mark.parametrize("type", ["BF16", "F16"])
def test_every_upper_half_rounds_as_in_ggml_at_every_boundary(type: str) -> None:
    """All signs and exponents with the lower bits where rounding turns, NaN and infinity too."""
    bits = (ALL_HALVES.astype(np.uint32) << 16)[:, None] | BOUNDARIES.astype(np.uint32)
    values = bits.reshape(-1).view(np.float32)
    assert np.array_equal(_rounded(type, values), _ggml(type, values))


@pytest.mark.parametrize("type", ["BF16", "F16"])
@given(raw=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=64))
def test_any_bits_round_as_in_ggml(type: str, raw: list[int]) -> None:
    values = np.array(raw, np.uint32).view(np.float32)
    assert np.array_equal(_rounded(type, values), _ggml(type, values))


def test_half_way_rounds_to_even() -> None:
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1 + 3 * 2**-11], np.float32)
    bf16 = _widened("BF16", _rounded("BF16", values[:2]))
    fp16 = _widened("F16", _rounded("F16", values[2:]))
    assert bf16.tolist() == [1, 1 + 2**-6]
    assert fp16.tolist() == [1, 1 + 2**-9]


def test_read_only_and_unaligned_bits_widen_too() -> None:
    raw = b"\0" + ALL_HALVES.tobytes()
    bits = np.frombuffer(raw, np.uint16, offset=1)
    assert np.array_equal(
        _widened("BF16", bits).view(np.uint32), _widened("BF16", ALL_HALVES).view(np.uint32)
    )


def _added(weight: _F32, b: _F32, a: _F32, scale: float) -> _F32:
    """Every product and sum rounded on its own, ranks in ascending order."""
    total = np.zeros_like(weight)
    for k in range(a.shape[0]):
        total += b[:, k, None] * a[k]
    return np.asarray(weight + np.float32(scale) * total)


def _normal(seed: int, *shape: int) -> _F32:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("rank", [1, 3, 8, 16, 17, 64, 256])
@pytest.mark.parametrize("shape", [(1, 1), (5, 33), (16, 512), (37, 1100)])
def test_a_product_is_added_in_one_order(shape: tuple[int, int], rank: int) -> None:
    weight = _normal(1, *shape)
    b, a = _normal(2, shape[0], rank), _normal(3, rank, shape[1])
    expected = _added(weight, b, a, 0.3)
    add_low_rank(weight, b, a, 0.3)
    assert np.array_equal(weight.view(np.uint32), expected.view(np.uint32))


def test_rows_added_apart_equal_rows_added_together() -> None:
    weight, b, a = _normal(1, 40, 300), _normal(2, 40, 16), _normal(3, 16, 300)
    apart = weight.copy()
    add_low_rank(weight, b, a, 2.0)
    for rows in (slice(0, 7), slice(7, 8), slice(8, 40)):
        add_low_rank(apart[rows], b[rows], a, 2.0)
    assert np.array_equal(apart, weight)


def test_infinite_products_stay_visible() -> None:
    weight, b, a = _normal(1, 4, 40), _normal(2, 4, 2), _normal(3, 2, 40)
    a[1, 5] = np.inf
    add_low_rank(weight, b, a, 1.0)
    assert not finite(weight)
    assert finite(np.delete(weight, 5, axis=1))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        add_low_rank(_normal(1, 4, 40), _normal(2, 4, 2), _normal(3, 2, 41), 1.0)
    with pytest.raises(ValueError, match="does not fit"):
        add_low_rank(_normal(1, 4, 40), _normal(2, 4, 3), _normal(3, 2, 40), 1.0)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 41, 4 * 999 - 1])
def test_one_number_that_is_not_finite_is_found(bad: float, at: int) -> None:
    values = np.full((4, 999), np.finfo(np.float32).max)
    values[:, ::2] = -np.finfo(np.float32).max
    assert finite(values)
    values.reshape(-1)[at] = bad
    assert not finite(values)


def test_nothing_is_finite() -> None:
    assert finite(np.empty((0, 5), np.float32))


def test_rows_are_scaled_each_by_its_factor() -> None:
    weight, factors = _normal(1, 9, 130), _normal(2, 9)
    expected = weight * factors[:, None]
    scale_rows(weight, factors)
    assert np.array_equal(weight, expected)


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 1000])
def test_squared_norms_are_summed_in_their_stated_order(columns: int) -> None:
    weight = _normal(1, 5, columns)
    partial = np.zeros((5, 64))
    for j in range(columns):
        partial[:, j % 64] += weight[:, j].astype(np.float64) ** 2
    expected = np.zeros(5)
    for lane in range(64):
        expected += partial[:, lane]
    assert np.array_equal(squared_norms(weight), expected)
    assert np.allclose(squared_norms(weight), (weight.astype(np.float64) ** 2).sum(1))
