"""Types that round a block of 32 weights in one step: Q8_0, Q4_0, Q5_0, Q5_1; and plain floats.

Blocks come as rows of two-dimensional arrays: a row of such an array keeps LLVM's vectors, where
a slice in every block would cost more than the arithmetic.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pipeline.gguf.kernels import Kernel
from pipeline.gguf.kernels.halves import fp32_to_bf16, fp32_to_fp16
from pipeline.gguf.kernels.lanes import F32, U8, Scratch, compiled, helper, put_half, to_half

I32 = npt.NDArray[np.int32]
U16 = npt.NDArray[np.uint16]

_WEIGHTS = 32
_LANES = 64
"""Blocks whose scales are found side by side."""
_LOW = 3 * _LANES
_LEVELS = 4 * _LANES
_SCRATCH = Scratch(5 * _LANES)

_LARGEST = np.float32(np.finfo(np.float32).max)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_SIGN = np.int32(-(2**31))
_BELOW_HALF = np.int32(0x3EFFFFFF)


def _f32(values: F32, importance: F32 | None, out: U8) -> None:
    np.copyto(out.view(np.float32), values)


def _f16(values: F32, importance: F32 | None, out: U8) -> None:
    fp32_to_fp16(values.reshape(-1), out.reshape(-1).view(np.uint16))


def _bf16(values: F32, importance: F32 | None, out: U8) -> None:
    fp32_to_bf16(values.reshape(-1), out.reshape(-1).view(np.uint16))


def _q8_0(values: F32, importance: F32 | None, out: U8) -> None:
    _quantize_q8_0(values.reshape(-1, _WEIGHTS), out.reshape(-1, 34), _SCRATCH.floats)


def _q4_0(values: F32, importance: F32 | None, out: U8) -> None:
    if importance is not None:
        from pipeline.gguf.kernels.legacy import q4_0

        return q4_0(values, importance, out)
    _quantize_q4_0(values.reshape(-1, _WEIGHTS), out.reshape(-1, 18), _SCRATCH.floats)


def _q5_0(values: F32, importance: F32 | None, out: U8) -> None:
    if importance is not None:
        from pipeline.gguf.kernels.legacy import q5_0

        return q5_0(values, importance, out)
    _quantize_q5_0(values.reshape(-1, _WEIGHTS), out.reshape(-1, 22), _SCRATCH.floats)


def _q5_1(values: F32, importance: F32 | None, out: U8) -> None:
    if importance is not None:
        from pipeline.gguf.kernels.legacy import q5_1

        return q5_1(values, importance, out)
    _quantize_q5_1(values.reshape(-1, _WEIGHTS), out.reshape(-1, 24), _SCRATCH.floats)


KERNELS: Mapping[str, Kernel] = {
    "F32": _f32, "F16": _f16, "BF16": _bf16,
    "Q8_0": _q8_0, "Q4_0": _q4_0, "Q5_0": _q5_0, "Q5_1": _q5_1,
}  # fmt: skip


@helper
def put_nibbles(block: U8, at: int, low: I32, high: I32) -> None:
    """Pair level j with level j + 16, four bits each; a fifth bit is left out."""
    for j in range(low.size):
        block[at + j] = np.uint8((low[j] & np.int32(15)) | ((high[j] & np.int32(15)) << 4))


@helper
def put_fifth_bits(block: U8, at: int, levels: I32) -> None:
    """Bit j of four bytes is the fifth bit of level j."""
    bits = np.int32(0)
    for j in range(levels.size):
        bits |= np.int32(((levels[j] >> np.int32(4)) & np.int32(1)) << np.int32(j))
    for n in range(4):
        block[at + n] = np.uint8((bits >> np.int32(8 * n)) & np.int32(0xFF))


@compiled
def _quantize_q8_0(values: F32, out: U8, scratch: F32) -> None:
    """quantize_row_q8_0_ref: values [blocks, 32], out [blocks, 34]."""
    words, signed = values.view(np.int32), out.view(np.int8)
    scale, inverse, halves = _scales(scratch)
    magnitude = scale.view(np.int32)
    for first in range(0, values.shape[0], _LANES):
        blocks = min(_LANES, values.shape[0] - first)
        for b in range(blocks):
            magnitude[b] = _largest_magnitude(words[first + b])
        _invert(scale, np.float32(127), inverse, halves)
        for b in range(blocks):
            row, levels, factor = values[first + b], signed[first + b], inverse[b]
            put_half(out[first + b], 0, halves[b])
            for j in range(row.size):
                levels[2 + j] = _nearest_byte(row[j] * factor)


@compiled
def _quantize_q4_0(values: F32, out: U8, scratch: F32) -> None:
    """quantize_row_q4_0_ref: values [blocks, 32], out [blocks, 18]."""
    scale, inverse, halves = _scales(scratch)
    levels = scratch[_LEVELS : _LEVELS + _WEIGHTS].view(np.int32)
    pairs = levels.reshape(2, _WEIGHTS // 2)
    for first in range(0, values.shape[0], _LANES):
        blocks = min(_LANES, values.shape[0] - first)
        _largest_weights(values, first, blocks, scale)
        _invert(scale, np.float32(-8), inverse, halves)
        for b in range(blocks):
            middle = _middle(scale[b], inverse[b], np.float32(8.5))
            _symmetric_levels(values[first + b], inverse[b], middle, np.int32(15), levels)
            put_half(out[first + b], 0, halves[b])
            put_nibbles(out[first + b], 2, pairs[0], pairs[1])


@compiled
def _quantize_q5_0(values: F32, out: U8, scratch: F32) -> None:
    """quantize_row_q5_0_ref: values [blocks, 32], out [blocks, 22]."""
    scale, inverse, halves = _scales(scratch)
    levels = scratch[_LEVELS : _LEVELS + _WEIGHTS].view(np.int32)
    pairs = levels.reshape(2, _WEIGHTS // 2)
    for first in range(0, values.shape[0], _LANES):
        blocks = min(_LANES, values.shape[0] - first)
        _largest_weights(values, first, blocks, scale)
        _invert(scale, np.float32(-16), inverse, halves)
        for b in range(blocks):
            middle = _middle(scale[b], inverse[b], np.float32(16.5))
            _symmetric_levels(values[first + b], inverse[b], middle, np.int32(31), levels)
            put_half(out[first + b], 0, halves[b])
            put_fifth_bits(out[first + b], 2, levels)
            put_nibbles(out[first + b], 6, pairs[0], pairs[1])


@compiled
def _quantize_q5_1(values: F32, out: U8, scratch: F32) -> None:
    """quantize_row_q5_1_ref: values [blocks, 32], out [blocks, 24]."""
    scale, inverse, halves = _scales(scratch)
    low = scratch[_LOW : _LOW + _LANES]
    levels = scratch[_LEVELS : _LEVELS + _WEIGHTS].view(np.int32)
    pairs = levels.reshape(2, _WEIGHTS // 2)
    words = values.view(np.int32)
    for first in range(0, values.shape[0], _LANES):
        blocks = min(_LANES, values.shape[0] - first)
        for b in range(blocks):
            lowest, highest = _range(words[first + b])
            low[b], scale[b] = lowest, highest - lowest
        _invert(scale, np.float32(31), inverse, halves)
        for b in range(blocks):
            _levels_above(values[first + b], low[b], inverse[b], levels)
            put_half(out[first + b], 0, halves[b])
            put_half(out[first + b], 2, to_half(low[b]))
            put_fifth_bits(out[first + b], 4, levels)
            put_nibbles(out[first + b], 8, pairs[0], pairs[1])


@helper
def _scales(scratch: F32) -> tuple[F32, F32, U16]:
    """Scale, its inverse and its fp16 bits of the blocks in hand: [64] each, or more."""
    halves = scratch[2 * _LANES : 3 * _LANES].view(np.uint16)
    return scratch[:_LANES], scratch[_LANES : 2 * _LANES], halves


@helper
def _invert(scale: F32, top: np.float32, inverse: F32, halves: U16) -> None:
    """Divide by `top`, then invert; 0 where fp32 holds no inverse."""
    for b in range(_LANES):
        step = np.float32(scale[b] / top)
        factor = np.float32(np.float32(1) / step)
        scale[b] = step
        inverse[b] = factor if abs(factor) <= _LARGEST else np.float32(0)
        halves[b] = to_half(step)


@helper
def _middle(scale: np.float32, inverse: np.float32, middle: np.float32) -> np.float32:
    """`middle`, but 0 for a scale too small to invert: ggml's levels are then all 0."""
    return np.float32(0) if inverse == 0 and scale != 0 else middle


@helper
def _symmetric_levels(
    row: F32, factor: np.float32, middle: np.float32, most: np.int32, levels: I32
) -> None:
    for j in range(row.size):
        level = np.int32(row[j] * factor + middle)
        levels[j] = level if level < most else most


@helper
def _levels_above(row: F32, low: np.float32, factor: np.float32, levels: I32) -> None:
    for j in range(row.size):
        level = (row[j] - low) * factor
        # a range beyond fp32 has factor 0 and may be infinite: NaN is level 0 in ggml
        levels[j] = np.int32((level if level > np.float32(0) else np.float32(0)) + np.float32(0.5))


@helper
def _nearest_byte(value: np.float32) -> np.int8:
    """roundf, half away from zero: add what lies just below a half, then cut."""
    sign = np.float32(value).view(np.int32) & _SIGN
    level = np.int32(value + np.int32(sign | _BELOW_HALF).view(np.float32))
    # the limits change nothing; with them LLVM packs by saturation
    level = level if level < np.int32(127) else np.int32(127)
    return np.int8(level if level > np.int32(-128) else np.int32(-128))


@helper
def _largest_magnitude(words: I32) -> np.int32:
    """Bits of the largest absolute weight: finite floats compare as their bits do."""
    largest = np.int32(0)
    for j in range(words.size):
        largest = max(largest, np.int32(words[j] & _MAGNITUDE))
    return largest


@helper
def _largest_weights(values: F32, first: int, blocks: int, largest: F32) -> None:
    words = values.view(np.int32)
    for b in range(blocks):
        largest[b] = _largest_weight(words[first + b])


@helper
def _largest_weight(words: I32) -> np.float32:
    """The first weight of the largest magnitude; +0 where all are zero."""
    above, below = np.int32(0), np.int32(0)
    for j in range(words.size):
        above = max(above, words[j])
        below = max(below, np.int32(words[j] ^ _SIGN))
    found = above if above > below else np.int32(below | _SIGN)
    if above == below:
        found = above
        for j in range(words.size):
            if np.int32(words[j] & _MAGNITUDE) == above:
                found = words[j] if above > 0 else above
                break
    return np.int32(found).view(np.float32)


@helper
def _range(words: I32) -> tuple[np.float32, np.float32]:
    """Least and greatest weight; of zeros of both signs the first is the least, as in ggml."""
    least, greatest = _ordered(words[0]), _ordered(words[0])
    for j in range(words.size):
        least = min(least, _ordered(words[j]))
        greatest = max(greatest, _ordered(words[j]))
    low = np.int32(_ordered(least)).view(np.float32)
    if low == 0:
        for j in range(words.size):
            if np.int32(words[j] & _MAGNITUDE) == 0:
                low = np.int32(words[j]).view(np.float32)
                break
    return low, np.int32(_ordered(greatest)).view(np.float32)


@helper
def _ordered(word: np.int32) -> np.int32:
    """A float's bits as an integer of the same order; its own inverse."""
    return np.int32(word ^ ((word >> np.int32(31)) & _MAGNITUDE))
