"""Q4_K and Q5_K: sub-blocks of 32 weights, each with a 6-bit scale and minimum.

Follows ggml-quants.c: quantize_row_q4_K_ref and quantize_row_q5_K_ref without an importance matrix,
quantize_row_q4_K_impl and quantize_row_q5_K_impl with one.
"""

from collections.abc import Mapping
from functools import partial
from math import sqrt

import numpy as np

from pipeline.gguf.kernels import F32, U8, Kernel
from pipeline.gguf.kernels.asymmetric import (
    GROUP,
    LANES,
    LOW,
    SCALE,
    SCRATCH,
    SPARE,
    SUM_W,
    VALUES,
    WEIGHTS,
    WON_INVERSE,
    WON_LOW,
    search,
)
from pipeline.gguf.kernels.lanes import (
    Scratch,
    compiled,
    from_half,
    helper,
    nearest_clamped,
    nearest_int,
    put_half,
    spread,
    spread_importance,
    steps,
    to_half,
)
from pipeline.gguf.kernels.scales import fit_scales

_BLOCK = 256
_Q4_BYTES = 144
_PARTS = 8
"""Sub-blocks of a super-block, and super-blocks of a group."""
_SIZE = 32
_ZERO = np.float32(0)

_scratch = Scratch(SCRATCH)


@compiled
def _quantize(
    values: F32, importance: F32 | None, out: U8, top: np.float32, ratios: F32, scratch: F32
) -> None:
    """All super-blocks of `values` [blocks, 256] into `out` [blocks, bytes], 8 at a time.

    `importance` is [super-blocks of a row, 256], or None; numba compiles each apart.
    """
    levels = np.empty(_BLOCK, np.uint8)
    for first in range(0, len(values), _PARTS):
        some = values[first : first + _PARTS]
        spread(some, scratch[VALUES : VALUES + GROUP], _SIZE, LANES)
        if importance is not None:
            spread_importance(importance, first, scratch[WEIGHTS : WEIGHTS + GROUP], _SIZE, LANES)
            _weigh_importance(scratch)
        else:
            _weigh(scratch)
        search(scratch, _SIZE, top, ratios, False)
        for part in range(len(some)):
            block = out[first + part]
            if importance is not None:
                _search_scales(scratch, part, block, len(block) == _Q4_BYTES)
            else:
                _write_scales(scratch, part, block)
            _final_levels(scratch, part, some[part], block, top, levels)
            _pack(levels, block)


@helper
def _weigh(scratch: F32) -> None:
    """Weights without an importance matrix: root mean square of the sub-block, plus |x|."""
    for lane in range(LANES):
        scratch[SPARE + lane] = _ZERO
    for chunk in range(_SIZE // 8):
        first = chunk * (8 * LANES)
        for lane in range(LANES):
            total = scratch[SPARE + lane]
            for i in range(8):
                x = scratch[VALUES + first + i * LANES + lane]
                total += x * x
            scratch[SPARE + lane] = total
    for lane in range(LANES):
        scratch[SPARE + lane] = sqrt(scratch[SPARE + lane] / np.float32(_SIZE))
    for i in range(_SIZE):
        for lane in range(LANES):
            at = i * LANES + lane
            scratch[WEIGHTS + at] = scratch[SPARE + lane] + abs(scratch[VALUES + at])


@helper
def _weigh_importance(scratch: F32) -> None:
    """Importance, at WEIGHTS, times sqrt(sigma2 + x**2); sigma2 twice the super-block's mean."""
    for s in range(_PARTS):
        scratch[SPARE + s] = _ZERO
    for j in range(_PARTS):
        for chunk in range(_SIZE // 8):
            first = j * _PARTS + chunk * (8 * LANES)
            for s in range(_PARTS):
                total = scratch[SPARE + s]
                for i in range(8):
                    x = scratch[VALUES + first + i * LANES + s]
                    total += x * x
                scratch[SPARE + s] = total
    for lane in range(_PARTS):
        scratch[SPARE + lane] = np.float32(2) * scratch[SPARE + lane] / np.float32(_BLOCK)
    for lane in range(_PARTS, LANES):
        scratch[SPARE + lane] = scratch[SPARE + lane - _PARTS]
    for i in range(_SIZE):
        for lane in range(LANES):
            at = i * LANES + lane
            x = scratch[VALUES + at]
            scratch[WEIGHTS + at] *= sqrt(scratch[SPARE + lane] + x * x)


@helper
def _search_scales(scratch: F32, part: int, block: U8, whole_bytes: bool) -> None:
    """As _write_scales, but d and dmin are searched for: a sub-block's weights weigh its scale.

    ggml does not hold the scales of Q4_K to six bits: `whole_bytes`.
    """
    scales, lows = np.empty(_PARTS, np.float32), np.empty(_PARTS, np.float32)
    weights = np.empty(_PARTS, np.float32)
    levels, low_levels = np.empty(_PARTS, np.int32), np.empty(_PARTS, np.int32)
    for j in range(_PARTS):
        lane = j * _PARTS + part
        scales[j], lows[j] = scratch[SCALE + lane], -scratch[LOW + lane]
        weights[j] = scratch[SUM_W + lane]
    put_half(block, 0, to_half(fit_scales(scales, weights, 63, levels)))
    put_half(block, 2, to_half(fit_scales(lows, weights, 63, low_levels)))
    limit = 255 if whole_bytes else 63
    for j in range(_PARTS):
        _put_six_bits(block, j, min(limit, int(levels[j])), min(limit, int(low_levels[j])))


@helper
def _write_scales(scratch: F32, part: int, block: U8) -> None:
    """d, dmin and the eight 6-bit scales and minimums of one super-block."""
    top_scale = top_low = _ZERO
    for lane in range(part, LANES, _PARTS):
        scale, low = scratch[SCALE + lane], -scratch[LOW + lane]
        top_scale = scale if scale > top_scale else top_scale
        top_low = low if low > top_low else top_low
    inverse = np.float32(63) / top_scale if top_scale > _ZERO else _ZERO
    inverse_low = np.float32(63) / top_low if top_low > _ZERO else _ZERO
    put_half(block, 0, to_half(top_scale / np.float32(63)))
    put_half(block, 2, to_half(top_low / np.float32(63)))
    for j in range(_PARTS):
        lane = j * _PARTS + part
        six = min(63, nearest_int(inverse * scratch[SCALE + lane]) & 0xFF)
        six_low = min(63, nearest_int(inverse_low * -scratch[LOW + lane]) & 0xFF)
        _put_six_bits(block, j, six, six_low)


@helper
def _put_six_bits(block: U8, j: int, scale: int, low: int) -> None:
    """Scale and minimum `j` in ggml's 12 bytes; j must count up from 0."""
    if j < 4:
        block[4 + j], block[8 + j] = scale, low
    else:
        block[8 + j] = (scale & 0xF) | (low & 0xF) << 4
        block[j] |= (scale >> 4) << 6
        block[4 + j] |= (low >> 4) << 6


@helper
def _six_bits(block: U8, j: int) -> tuple[int, int]:
    """Scale and minimum `j` (ggml-quants.c get_scale_min_k4)."""
    if j < 4:
        return block[4 + j] & 63, block[8 + j] & 63
    return (block[8 + j] & 0xF) | (block[j] >> 6) << 4, block[8 + j] >> 4 | (block[4 + j] >> 6) << 4


@helper
def _final_levels(
    scratch: F32, part: int, values: F32, block: U8, top: np.float32, levels: U8
) -> None:
    """Levels by the scales as stored; where a stored scale is 0, those that the search found."""
    d = from_half(block[0] | block[1] << 8)
    d_low = from_half(block[2] | block[3] << 8)
    for j in range(_PARTS):
        scale, low = _six_bits(block, j)
        step, lowest = d * np.float32(scale), d_low * np.float32(low)
        x, level = values[j * _SIZE : (j + 1) * _SIZE], levels[j * _SIZE : (j + 1) * _SIZE]
        if step != _ZERO:
            for i in range(_SIZE):
                level[i] = np.uint8(nearest_clamped((x[i] + lowest) / step, _ZERO, top))
        else:
            inverse = scratch[WON_INVERSE + j * _PARTS + part]
            lowest = scratch[WON_LOW + j * _PARTS + part]
            for i in range(_SIZE):
                level[i] = np.uint8(nearest_clamped(inverse * (x[i] - lowest), _ZERO, top))


@helper
def _pack(levels: U8, block: U8) -> None:
    """The low four bits of each level, after the fifth bits where the block has room for them."""
    low = block[len(block) - _BLOCK // 2 :]
    for pair in range(4):
        first = levels[pair * 64 : pair * 64 + 32]
        second, packed = levels[pair * 64 + 32 : pair * 64 + 64], low[pair * 32 : pair * 32 + 32]
        for i in range(32):
            packed[i] = (first[i] & 0xF) | (second[i] & 0xF) << 4
    if len(block) > 16 + _BLOCK // 2:
        high = block[16:48]
        for i in range(32):
            bits = 0
            for part in range(_PARTS):
                bits |= (levels[part * 32 + i] >> 4) << part
            high[i] = bits


def _kernel(
    top: int, plain: F32, weighted: F32, values: F32, importance: F32 | None, out: U8
) -> None:
    blocks = values.size // _BLOCK
    flat, packed = values.reshape(blocks, _BLOCK), out.reshape(blocks, -1)
    weights = None if importance is None else importance.reshape(-1, _BLOCK)
    ratios = plain if importance is None else weighted
    _quantize(flat, weights, packed, np.float32(top), ratios, _scratch.floats)


KERNELS: Mapping[str, Kernel] = {
    "Q4_K": partial(_kernel, 15, steps(15, -1, 0.1, 21), steps(15, -0.9, 0.05, 37)),
    "Q5_K": partial(_kernel, 31, steps(31, -0.5, 0.1, 16), steps(31, -0.9, 0.05, 37)),
}
