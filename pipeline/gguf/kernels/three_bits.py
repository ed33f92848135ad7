"""Q3_K: sub-blocks of 16 weights, each with a 6-bit scale.

Follows ggml-quants.c: quantize_row_q3_K_ref without an importance matrix, quantize_row_q3_K_impl
with one.
"""

from collections.abc import Mapping

import numpy as np

from pipeline.gguf.kernels import F32, U8, Kernel, descent, symmetric
from pipeline.gguf.kernels.lanes import (
    Scratch,
    chosen,
    compiled,
    from_half,
    helper,
    nearest_clamped,
    nearest_int,
    put_half,
    spread,
    to_half,
)
from pipeline.gguf.kernels.low_bits import (
    BLOCK,
    PARTS,
    SIZE,
    gather,
    pack_pairs,
    weigh,
)
from pipeline.gguf.kernels.symmetric import LANES

_HIGH, _LOW, _SCALES, _D = 0, 32, 96, 108
"""Where a block's upper bits, lower two bits, scales and d begin."""
_SUPERS = LANES // PARTS
"""Super-blocks of a group."""
_GROUP = SIZE * LANES
_ZERO = np.float32(0)
_HALF = np.float32(4)
_DIVIDENDS, _SCALE_DIVIDENDS = symmetric.candidates(4), symmetric.candidates(32)

_plain_scratch = Scratch(descent.SCRATCH)
_weighted_scratch = Scratch(symmetric.SCRATCH)


def _kernel(values: F32, importance: F32 | None, out: U8) -> None:
    flat, packed = values.reshape(-1, BLOCK), out.reshape(-1, 110)
    if importance is None:
        _quantize(flat, packed, _plain_scratch.floats)
    else:
        _quantize_weighted(flat, importance.reshape(-1, BLOCK), packed, _weighted_scratch.floats)


KERNELS: Mapping[str, Kernel] = {"Q3_K": _kernel}


@compiled
def _quantize(values: F32, out: U8, scratch: F32) -> None:
    x = scratch[descent.VALUES : descent.VALUES + _GROUP]
    found = scratch[descent.LEVELS : descent.LEVELS + _GROUP]
    for first in range(0, len(values), _SUPERS):
        some = values[first : first + _SUPERS]
        spread(some, x, SIZE, LANES)
        descent.descend(scratch)
        for s in range(len(some)):
            _write_scales(scratch[descent.SCALE + s :], out[first + s])
        _write_levels(x, found, out[first : first + _SUPERS])


@helper
def _write_scales(scale: F32, block: U8) -> None:
    """d and the sixteen 6-bit scales; sub-block j's is at j * _SUPERS."""
    top = _ZERO
    for j in range(PARTS):
        some = scale[j * _SUPERS]
        top = some if abs(some) > abs(top) else top
    block[_SCALES:] = np.uint8(0)
    if top != _ZERO:
        inverse = np.float32(-32) / top
        put_half(block, _D, to_half(np.float32(1) / inverse))
        for j in range(PARTS):
            # ggml keeps the low byte of the level before it clamps
            level = int(np.int8(nearest_int(inverse * scale[j * _SUPERS])))
            _put_scale(block, j, max(-32, min(31, level)) + 32)


@compiled
def _quantize_weighted(values: F32, importance: F32, out: U8, scratch: F32) -> None:
    x = scratch[symmetric.VALUES : symmetric.VALUES + _GROUP]
    w = scratch[symmetric.WEIGHTS : symmetric.WEIGHTS + _GROUP]
    found = scratch[symmetric.PRODUCTS : symmetric.PRODUCTS + _GROUP]
    for first in range(0, len(values), _SUPERS):
        some = values[first : first + _SUPERS]
        spread(some, x, SIZE, LANES)
        weigh(importance, first, x, w, np.float32(2))
        symmetric.search_symmetric(scratch, SIZE, _HALF, _DIVIDENDS)
        for s in range(len(some)):
            _write_weighted_scales(scratch, s, out[first + s])
        _find_levels(scratch, found)
        _write_levels(x, found, out[first : first + _SUPERS])


@helper
def _write_weighted_scales(scratch: F32, s: int, block: U8) -> None:
    """As _write_scales, but d is searched for too: the weights of a sub-block weigh its scale."""
    scale, weight = np.empty(PARTS, np.float32), np.zeros(PARTS, np.float32)
    for j in range(PARTS):
        lane = j * _SUPERS + s
        scale[j] = scratch[symmetric.SCALE + lane]
        for i in range(SIZE):
            weight[j] += scratch[symmetric.WEIGHTS + i * LANES + lane]
    block[_SCALES:] = np.uint8(0)
    d, inverse, middle = _fit_scales(scale, weight, _SCALE_DIVIDENDS)
    put_half(block, _D, to_half(d))
    for j in range(PARTS):
        level = nearest_clamped(inverse * scale[j], np.float32(-32), np.float32(31))
        _put_scale(block, j, int(level) + middle)


@helper
def _fit_scales(scale: F32, weight: F32, dividends: F32) -> tuple[np.float32, np.float32, int]:
    """make_qx_quants of sixteen scales: d, the inverse for their levels, and which level 0 is.

    Where all count as zero, that is not 32 but 0.
    """
    largest = d = best = won = _ZERO
    for j in range(PARTS):
        largest = scale[j] if abs(scale[j]) > abs(largest) else largest
    if abs(largest) < symmetric.ALL_ZERO:
        return _ZERO, _ZERO, 0
    for step in range(len(dividends)):
        inverse = dividends[step] / largest
        sum_xl = sum_l2 = _ZERO
        for j in range(PARTS):
            level = nearest_clamped(inverse * scale[j], np.float32(-32), np.float32(31))
            sum_xl += weight[j] * scale[j] * level
            sum_l2 += weight[j] * level * level
        if step == 0:
            d, won = sum_xl / sum_l2 if sum_l2 != _ZERO else _ZERO, inverse
            best = d * sum_xl
        elif sum_l2 > _ZERO and sum_xl * sum_xl > best * sum_l2:
            d, won = sum_xl / sum_l2, inverse
            best = d * sum_xl
    return d, won, 32


@helper
def _find_levels(scratch: F32, found: F32) -> None:
    """Levels 0 to 7 as the search found them; 0, not the middle, in a lane of zeros."""
    for i in range(SIZE):
        for lane in range(LANES):
            inverse = scratch[symmetric.WON_INVERSE + lane]
            value = scratch[symmetric.VALUES + i * LANES + lane]
            level = nearest_clamped(inverse * value, -_HALF, _HALF - np.float32(1)) + _HALF
            found[i * LANES + lane] = chosen(inverse != _ZERO, level, _ZERO)


@helper
def _put_scale(block: U8, j: int, scale: int) -> None:
    """Scale `j`, 0 to 63, in ggml's 12 bytes, zeros before."""
    block[_SCALES + j % 8] |= (scale & 0xF) << (4 * (j // 8))
    block[_SCALES + 8 + j % 4] |= (scale >> 4) << (2 * (j // 4))


@helper
def _write_levels(x: F32, found: F32, blocks: U8) -> None:
    """Levels by the scales as stored; where a stored scale is 0, those that the search found."""
    steps, levels = np.zeros(LANES, np.float32), np.empty(BLOCK, np.uint8)
    for s in range(len(blocks)):
        _read_steps(blocks[s], steps[s:])
    for i in range(SIZE):
        for lane in range(LANES):
            at = i * LANES + lane
            level = nearest_clamped(x[at] / steps[lane], -_HALF, _HALF - np.float32(1)) + _HALF
            x[at] = chosen(steps[lane] != _ZERO, level, found[at])
    for s in range(len(blocks)):
        gather(x, s, _SUPERS, levels)
        _pack_high_bits(levels, blocks[s, _HIGH:_LOW])
        pack_pairs(levels, blocks[s, _LOW:_SCALES])


@helper
def _read_steps(block: U8, steps: F32) -> None:
    d = from_half(np.uint16(block[_D] | block[_D + 1] << 8))
    for j in range(PARTS):
        low = (block[_SCALES + j % 8] >> (4 * (j // 8))) & 0xF
        high = (block[_SCALES + 8 + j % 4] >> (2 * (j // 4))) & 3
        steps[j * _SUPERS] = d * np.float32((low | high << 4) - 32)


@helper
def _pack_high_bits(levels: U8, mask: U8) -> None:
    """The third bit of each level: weights l, l + 32, ... share a byte."""
    for i in range(32):
        bits = 0
        for part in range(8):
            bits |= (levels[part * 32 + i] >> 2) << part
        mask[i] = np.uint8(bits)
