"""Q6_K: sub-blocks of 16 weights, each with an 8-bit scale (quantize_row_q6_K_ref and _impl)."""

from collections.abc import Mapping

import numpy as np

from pipeline.gguf.kernels import F32, U8, Kernel
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
    to_half,
)
from pipeline.gguf.kernels.symmetric import (
    ALL_ZERO,
    LANES,
    SCALE,
    SCRATCH,
    SPARE,
    VALUES,
    WEIGHTS,
    WON_INVERSE,
    candidates,
    search_symmetric,
)

_BLOCK = 256
_SIZE = 16
_PARTS = 16
"""Sub-blocks of a super-block."""
_GROUP = _SIZE * LANES
_SUPERS = LANES // _PARTS
"""Super-blocks of a group."""
_HALF = np.float32(32)
_DIVIDENDS = candidates(32)
_ZERO = np.float32(0)
_STEPS = SPARE
"""[256] floats: the stored scale of each weight of one super-block."""
_HIGH, _SCALES, _D = 128, 192, 208
"""Where a block's upper two bits, scales and d begin; its lower four bits come first."""

_scratch = Scratch(SCRATCH)


@compiled
def _quantize(values: F32, importance: F32 | None, out: U8, dividends: F32, scratch: F32) -> None:
    """All super-blocks of `values` [blocks, 256] into `out` [blocks, 210], 8 at a time.

    `importance` is [super-blocks of a row, 256], or None; numba compiles each apart.
    """
    levels = np.empty(_BLOCK, np.uint8)
    for first in range(0, len(values), _SUPERS):
        some = values[first : first + _SUPERS]
        spread(some, scratch[VALUES : VALUES + _SIZE * LANES], _SIZE, LANES)
        if importance is not None:
            spread_importance(
                importance, first, scratch[WEIGHTS : WEIGHTS + _SIZE * LANES], _SIZE, LANES
            )
        else:
            _weigh(scratch)
        search_symmetric(scratch, _SIZE, _HALF, dividends)
        for part in range(len(some)):
            block = out[first + part]
            if _write_scales(scratch, part, block):
                _final_levels(scratch, part, some[part], levels)
                _pack(levels, block)


@helper
def _weigh(scratch: F32) -> None:
    """Weights without an importance matrix: x squared."""
    for i in range(_GROUP):
        x = scratch[VALUES + i]
        scratch[WEIGHTS + i] = x * x


@helper
def _write_scales(scratch: F32, part: int, block: U8) -> bool:
    """d and the 16 scales of one super-block, and each weight's step at _STEPS.

    False where all scales count as zero: then the whole block is zeros.
    """
    largest = _ZERO
    for lane in range(part, LANES, _SUPERS):
        scale = scratch[SCALE + lane]
        largest = scale if abs(scale) > abs(largest) else largest
    if abs(largest) < ALL_ZERO:
        block[:] = 0
        return False
    inverse = np.float32(-128) / largest
    half = to_half(np.float32(1) / inverse)
    put_half(block, _D, half)
    d = from_half(half)
    for j in range(_PARTS):
        scale = min(127, nearest_int(inverse * scratch[SCALE + j * _SUPERS + part]))
        block[_SCALES + j] = scale & 0xFF
        step = d * np.float32(np.int8(scale))
        for i in range(_SIZE):
            scratch[_STEPS + j * _SIZE + i] = step
    return True


@helper
def _final_levels(scratch: F32, part: int, values: F32, levels: U8) -> None:
    """Levels by the scales as stored; where a stored scale is 0, those that the search found."""
    for i in range(_BLOCK):
        levels[i] = _level(values[i] / scratch[_STEPS + i])
    for j in range(_PARTS):
        if scratch[_STEPS + j * _SIZE] == _ZERO:
            inverse = scratch[WON_INVERSE + j * _SUPERS + part]
            for i in range(j * _SIZE, (j + 1) * _SIZE):
                # ggml leaves level 0, not its middle, where the search found nothing to scale
                levels[i] = _level(inverse * values[i]) if inverse != _ZERO else 0


@helper
def _level(value: np.float32) -> np.uint8:
    return np.uint8(nearest_clamped(value, -_HALF, _HALF - np.float32(1)) + _HALF)


@helper
def _pack(levels: U8, block: U8) -> None:
    """Four bits of each level, then the other two, as ggml lays them out by halves of the block."""
    for half in range(2):
        first, second = levels[half * 128 :], levels[half * 128 + 32 :]
        third, fourth = levels[half * 128 + 64 :], levels[half * 128 + 96 :]
        low, high = block[half * 64 :], block[_HIGH + half * 32 :]
        for i in range(32):
            low[i] = (first[i] & 0xF) | (third[i] & 0xF) << 4
            low[i + 32] = (second[i] & 0xF) | (fourth[i] & 0xF) << 4
            high[i] = first[i] >> 4 | second[i] >> 4 << 2 | third[i] >> 4 << 4 | fourth[i] >> 4 << 6


def _kernel(values: F32, importance: F32 | None, out: U8) -> None:
    blocks = values.size // _BLOCK
    flat, packed = values.reshape(blocks, _BLOCK), out.reshape(blocks, -1)
    weights = None if importance is None else importance.reshape(-1, _BLOCK)
    _quantize(flat, weights, packed, _DIVIDENDS, _scratch.floats)


KERNELS: Mapping[str, Kernel] = {"Q6_K": _kernel}
