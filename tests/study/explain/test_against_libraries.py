"""The teaching code gives what bitsandbytes and torch give, number for number."""

import numpy as np
import pytest

from pipeline.study.explain import numbers

pytestmark = pytest.mark.e2e

SHAPES = ((48, 1024), (3, 64), (5, 96), (7, 50))
"""Whole groups of blocks, one block a row, blocks over two rows, a short last block."""


def weights(rows, columns, seed=0):
    return np.random.default_rng(seed).normal(0, 0.02, (rows, columns)).astype(np.float32)


def unpacked(packed, count):
    pairs = packed.numpy().reshape(-1)
    return np.stack([pairs >> 4, pairs & 15], axis=1).reshape(-1)[:count]


def test_the_levels_are_those_of_bitsandbytes():
    from bitsandbytes import functional

    published = {
        kind: functional.get_4bit_type(kind, device="cpu").numpy() for kind in ("nf4", "fp4")
    }
    np.testing.assert_array_equal(numbers.NF4_LEVELS, published["nf4"])
    np.testing.assert_array_equal(numbers.FP4_LEVELS, published["fp4"])
    dynamic = functional.create_dynamic_map().numpy()
    np.testing.assert_allclose(numbers.dynamic_levels(), dynamic, rtol=2e-7)  # fp32's last bit


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("kind", "levels"), [("nf4", numbers.NF4_LEVELS), ("fp4", numbers.FP4_LEVELS)]
)
def test_four_bit_codes_scales_and_weights_are_those_of_bitsandbytes(kind, levels, shape):
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    values = weights(*shape)
    packed, state = quantize_4bit(torch.from_numpy(values), quant_type=kind)
    codes, absmax = numbers.quantize_blocks(values, levels)
    np.testing.assert_array_equal(absmax, state.absmax.numpy())
    theirs = unpacked(packed, values.size)
    np.testing.assert_array_equal(levels[codes], levels[theirs])
    if kind == "nf4":  # FP4 has two codes for zero
        np.testing.assert_array_equal(codes, theirs)
    back = numbers.from_blocks(codes, absmax, levels).reshape(shape)
    np.testing.assert_array_equal(back, dequantize_4bit(packed, state).numpy())


def test_double_quantization_is_that_of_bitsandbytes():
    """Its CPU code looks levels up on a grid, so a scale between two levels may get the other."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, dequantize_blockwise, quantize_4bit

    values = weights(512, 1024)
    packed, state = quantize_4bit(
        torch.from_numpy(values), quant_type="nf4", compress_statistics=True
    )
    codes, absmax = numbers.quantize_blocks(values, numbers.NF4_LEVELS)
    double = numbers.double_quantize(absmax)
    np.testing.assert_array_equal(codes, unpacked(packed, values.size))
    np.testing.assert_allclose(double.offset, state.offset.item(), rtol=1e-6)
    np.testing.assert_allclose(double.absmax, state.state2.absmax.numpy(), rtol=1e-5)
    theirs = state.absmax.numpy()
    other = np.flatnonzero(double.codes != theirs)
    assert len(other) <= 0.005 * len(theirs)
    levels = numbers.dynamic_levels()
    scaled = (absmax - double.offset) / np.repeat(double.absmax, numbers.GROUP)[: len(absmax)]
    mine, its = (np.abs(levels[each] - scaled)[other] for each in (double.codes, theirs))
    np.testing.assert_allclose(mine, its, atol=1e-4)
    same = np.setdiff1d(np.arange(len(theirs)), other)
    scales = dequantize_blockwise(state.absmax, state.state2).numpy() + state.offset.item()
    np.testing.assert_allclose(double.restored()[same], scales[same], rtol=1e-6)
    back = numbers.from_blocks(codes, double.restored(), numbers.NF4_LEVELS).reshape(-1, 64)[same]
    wide = dequantize_4bit(packed, state).numpy().reshape(-1, 64)[same]
    np.testing.assert_allclose(back, wide, rtol=1e-6, atol=1e-9)


def test_double_quantization_saves_what_the_bytes_say():
    """0.373 bits a weight, counted in the tensors that bitsandbytes keeps."""
    import torch
    from bitsandbytes.functional import quantize_4bit

    values = torch.from_numpy(weights(512, 1024))
    size = {}
    for double in (False, True):
        packed, state = quantize_4bit(values, quant_type="nf4", compress_statistics=double)
        kept = [packed, state.absmax, *([state.state2.absmax] if double else [])]
        size[double] = 8 * sum(each.numel() * each.element_size() for each in kept) / values.numel()
    assert size == {each: numbers.bits_4bit(double=each) for each in (False, True)}
    assert size[False] - size[True] == pytest.approx(0.373, abs=0.0005)


def test_absmax_int8_is_that_of_llm_int8():
    import torch
    from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant

    values = weights(64, 768)
    codes, scales = numbers.absmax_int8(values)
    theirs, absmax, _ = int8_vectorwise_quant(torch.from_numpy(values))
    np.testing.assert_array_equal(codes, theirs.numpy())
    np.testing.assert_allclose(scales * 127, absmax.numpy(), rtol=1e-6)
    back = int8_vectorwise_dequant(theirs, absmax).numpy()
    np.testing.assert_allclose(numbers.from_absmax_int8(codes, scales), back, rtol=1e-6, atol=1e-9)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("shift", [0.0, 0.01, 0.2, -0.2])
def test_zero_point_int8_is_that_of_torch(shift):
    """Rows around zero, leaning, and all on one side."""
    import torch

    values = weights(64, 768) + np.float32(shift)
    codes, scales, zeros = numbers.zero_point_int8(values)
    back = numbers.from_zero_point_int8(codes, scales, zeros)
    tensor = torch.from_numpy(values)
    faked = torch.fake_quantize_per_channel_affine(
        tensor, torch.from_numpy(scales), torch.from_numpy(zeros), 0, -128, 127
    )
    np.testing.assert_array_equal(back, faked.numpy())
    for row in (0, 1, 2):
        theirs = torch.quantize_per_tensor(
            tensor[row], float(scales[row]), int(zeros[row]), torch.qint8
        )
        np.testing.assert_array_equal(codes[row], theirs.int_repr().numpy())


def test_torch_would_choose_the_same_scale_and_zero_point():
    import torch
    from torch.ao.quantization.observer import MinMaxObserver

    for shift in (0.0, 0.01, 0.2, -0.2):
        row = weights(1, 768, seed=3) + np.float32(shift)
        watch = MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_affine)
        watch(torch.from_numpy(row))
        scale, zero = watch.calculate_qparams()
        _, scales, zeros = numbers.zero_point_int8(row)
        np.testing.assert_allclose(scales[0], scale.item(), rtol=1e-6)
        assert zeros[0] == zero.item()
