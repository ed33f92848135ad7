"""Q2_K: sub-blocks of 16 weights, each with a 4-bit scale and minimum.

Follows ggml-quants.c: quantize_row_q2_K_ref without an importance matrix, quantize_row_q2_K_impl
with one.
"""

from collections.abc import Mapping

import numpy as np

from pipeline.gguf.kernels import F32, U8, Kernel
from pipeline.gguf.kernels.asymmetric import (
    LANES,
    LOW,
    SCALE,
    SCRATCH,
    SUM_W,
    VALUES,
    WEIGHTS,
    WON_INVERSE,
    WON_LOW,
    search,
)
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
    steps,
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
from pipeline.gguf.kernels.scales import fit_scales

_LEVELS, _D, _D_LOW = 16, 80, 82
"""Where a block's levels, d and dmin begin, after its sixteen scales."""
_SUPERS = LANES // PARTS
"""Super-blocks of a group."""
_GROUP = SIZE * LANES
_ZERO = np.float32(0)
_TOP, _TOP_SCALE = np.float32(3), np.float32(15)
_RATIOS, _WEIGHTED_RATIOS = steps(3, -0.5, 0.1, 16), steps(3, -0.9, 0.05, 37)

_scratch = Scratch(SCRATCH)


def _kernel(values: F32, importance: F32 | None, out: U8) -> None:
    flat, packed = values.reshape(-1, BLOCK), out.reshape(-1, 84)
    if importance is None:
        _quantize(flat, packed, _RATIOS, _scratch.floats)
    else:
        weights = importance.reshape(-1, BLOCK)
        _quantize_weighted(flat, weights, packed, _WEIGHTED_RATIOS, _scratch.floats)


KERNELS: Mapping[str, Kernel] = {"Q2_K": _kernel}


@compiled
def _quantize(values: F32, out: U8, ratios: F32, scratch: F32) -> None:
    x, w = scratch[VALUES : VALUES + _GROUP], scratch[WEIGHTS : WEIGHTS + _GROUP]
    for first in range(0, len(values), _SUPERS):
        some = values[first : first + _SUPERS]
        spread(some, x, SIZE, LANES)
        for at in range(_GROUP):
            w[at] = abs(x[at])
        search(scratch, SIZE, _TOP, ratios, True)
        for s in range(len(some)):
            _write_scales(scratch, s, out[first + s])
        _write_levels(scratch, x, out[first : first + _SUPERS])


@helper
def _write_scales(scratch: F32, s: int, block: U8) -> None:
    """d, dmin and the sixteen 4-bit scales and minimums."""
    top_scale = top_low = _ZERO
    for lane in range(s, LANES, _SUPERS):
        scale, low = scratch[SCALE + lane], -scratch[LOW + lane]
        top_scale = scale if scale > top_scale else top_scale
        top_low = low if low > top_low else top_low
    inverse = _TOP_SCALE / top_scale if top_scale > _ZERO else _ZERO
    inverse_low = _TOP_SCALE / top_low if top_low > _ZERO else _ZERO
    for j in range(PARTS):
        lane = j * _SUPERS + s
        four = nearest_int(inverse * scratch[SCALE + lane])
        four_low = nearest_int(inverse_low * -scratch[LOW + lane])
        block[j] = np.uint8((four | four_low << 4) & 0xFF)
    put_half(block, _D, to_half(top_scale / _TOP_SCALE))
    put_half(block, _D_LOW, to_half(top_low / _TOP_SCALE))


@compiled
def _quantize_weighted(values: F32, importance: F32, out: U8, ratios: F32, scratch: F32) -> None:
    x, w = scratch[VALUES : VALUES + _GROUP], scratch[WEIGHTS : WEIGHTS + _GROUP]
    for first in range(0, len(values), _SUPERS):
        some = values[first : first + _SUPERS]
        spread(some, x, SIZE, LANES)
        weigh(importance, first, x, w, np.float32(1))
        search(scratch, SIZE, _TOP, ratios, False)
        for s in range(len(some)):
            _write_weighted_scales(scratch, s, out[first + s])
        _write_levels(scratch, x, out[first : first + _SUPERS])


@helper
def _write_weighted_scales(scratch: F32, s: int, block: U8) -> None:
    """As _write_scales, but d and dmin are searched for: a sub-block's weights weigh its scale."""
    scale, low = np.empty(PARTS, np.float32), np.empty(PARTS, np.float32)
    weight = np.empty(PARTS, np.float32)
    levels, low_levels = np.empty(PARTS, np.int32), np.empty(PARTS, np.int32)
    for j in range(PARTS):
        lane = j * _SUPERS + s
        scale[j], low[j] = scratch[SCALE + lane], -scratch[LOW + lane]
        weight[j] = scratch[SUM_W + lane]
    put_half(block, _D, to_half(fit_scales(scale, weight, 15, levels)))
    put_half(block, _D_LOW, to_half(fit_scales(low, weight, 15, low_levels)))
    for j in range(PARTS):
        block[j] = np.uint8((levels[j] | low_levels[j] << 4) & 0xFF)


@helper
def _write_levels(scratch: F32, x: F32, blocks: U8) -> None:
    """Levels by the scales as stored; where a stored scale is 0, those that the search found."""
    step, lowest = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    levels = np.empty(BLOCK, np.uint8)
    for s in range(len(blocks)):
        _read_steps(blocks[s], step[s:], lowest[s:])
    for i in range(SIZE):
        for lane in range(LANES):
            value = x[i * LANES + lane]
            found = scratch[WON_INVERSE + lane] * (value - scratch[WON_LOW + lane])
            stored = (value + lowest[lane]) / step[lane]
            level = chosen(step[lane] != _ZERO, stored, found)
            x[i * LANES + lane] = nearest_clamped(level, _ZERO, _TOP)
    for s in range(len(blocks)):
        gather(x, s, _SUPERS, levels)
        pack_pairs(levels, blocks[s, _LEVELS:_D])


@helper
def _read_steps(block: U8, step: F32, lowest: F32) -> None:
    d = from_half(np.uint16(block[_D] | block[_D + 1] << 8))
    d_low = from_half(np.uint16(block[_D_LOW] | block[_D_LOW + 1] << 8))
    for j in range(PARTS):
        step[j * _SUPERS] = d * np.float32(block[j] & 0xF)
        lowest[j * _SUPERS] = d_low * np.float32(block[j] >> 4)
