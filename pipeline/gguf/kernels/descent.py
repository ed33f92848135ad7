"""Coordinate descent on the levels of sub-blocks of 16 weights, a lane each (make_q3_quants)."""

import numpy as np

from pipeline.gguf.kernels.lanes import F32, helper, nearest_clamped
from pipeline.gguf.kernels.symmetric import LANES

SIZE = 16
GROUP = SIZE * LANES

# where each part of the scratch begins, in floats
VALUES = 0
LEVELS = GROUP
SUM_LX = LEVELS + GROUP
SUM_L2 = SUM_LX + LANES
BEFORE = SUM_L2 + LANES
SCALE = BEFORE + (BEFORE - LEVELS)
EXTREME = SCALE + LANES
SCRATCH = EXTREME + LANES

_ZERO, _ONE = np.float32(0), np.float32(1)
_LOWEST, _HIGHEST = np.float32(-4), np.float32(3)
_LEAST = np.float32(1e-15)
"""A largest weight below this counts as zero (ggml-quants.c GROUP_MAX_EPS)."""
_SWEEPS = 5


@helper
def descend(scratch: F32) -> None:
    """Find the scale and the levels -4 to 3 of every lane, least in error weighted by x * x.

    In: [16, LANES] at VALUES. Out: SCALE [LANES], and at LEVELS [16, LANES] the levels plus 4; a
    lane of zeros gets scale 0 and 0 at LEVELS.
    """
    _find_extremes(scratch)
    _first_levels(scratch)
    state, before = scratch[LEVELS:BEFORE], scratch[BEFORE:SCALE]
    for _ in range(_SWEEPS):
        for at in range(BEFORE - LEVELS):
            before[at] = state[at]
        _sweep(scratch)
        if not _differ(state, before):
            break
    _finish(scratch)


@helper
def _differ(one: F32, other: F32) -> bool:
    differing = np.int32(0)
    for at in range(one.size):
        differing |= np.int32(one[at] != other[at])
    return bool(differing != 0)


@helper
def _find_extremes(scratch: F32) -> None:
    """The first weight of the largest magnitude in every lane."""
    x, extreme = scratch[VALUES : VALUES + GROUP], scratch[EXTREME : EXTREME + LANES]
    for lane in range(LANES):
        extreme[lane] = _ZERO
    for first in range(0, GROUP, 8 * LANES):
        for lane in range(LANES):
            found = extreme[lane]
            for i in range(8):
                value = x[first + i * LANES + lane]
                found = value if abs(value) > abs(found) else found
            extreme[lane] = found


@helper
def _first_levels(scratch: F32) -> None:
    x, levels = scratch[VALUES : VALUES + GROUP], scratch[LEVELS : LEVELS + GROUP]
    extreme = scratch[EXTREME : EXTREME + LANES]
    sum_lx, sum_l2 = scratch[SUM_LX : SUM_LX + LANES], scratch[SUM_L2 : SUM_L2 + LANES]
    for lane in range(LANES):
        sum_lx[lane] = sum_l2[lane] = _ZERO
    for i in range(SIZE):
        for lane in range(LANES):
            value = x[i * LANES + lane]
            level = nearest_clamped(_LOWEST / extreme[lane] * value, _LOWEST, _HIGHEST)
            levels[i * LANES + lane] = level - _LOWEST
            sum_lx[lane] += value * value * value * level
            sum_l2[lane] += value * value * level * level


@helper
def _sweep(scratch: F32) -> None:
    """Move each level in turn, in every lane where that lessens the error."""
    x, levels = scratch[VALUES : VALUES + GROUP], scratch[LEVELS : LEVELS + GROUP]
    sum_lx, sum_l2 = scratch[SUM_LX : SUM_LX + LANES], scratch[SUM_L2 : SUM_L2 + LANES]
    for i in range(SIZE):
        for lane in range(LANES):
            at = i * LANES + lane
            value, level, lx, l2 = x[at], levels[at] + _LOWEST, sum_lx[lane], sum_l2[lane]
            weight = value * value
            rest_lx, rest_l2 = lx - weight * value * level, l2 - weight * level * level
            new = nearest_clamped(value * rest_l2 / rest_lx, _LOWEST, _HIGHEST)
            new_lx, new_l2 = rest_lx + weight * value * new, rest_l2 + weight * new * new
            better = new_lx * new_lx * l2 > lx * lx * new_l2
            moved = (rest_lx > _ZERO) & (new_l2 > _ZERO) & (new != level) & better
            levels[at] = (new if moved else level) - _LOWEST
            sum_lx[lane], sum_l2[lane] = new_lx if moved else lx, new_l2 if moved else l2


@helper
def _finish(scratch: F32) -> None:
    levels, extreme = scratch[LEVELS : LEVELS + GROUP], scratch[EXTREME : EXTREME + LANES]
    sum_lx, sum_l2 = scratch[SUM_LX : SUM_LX + LANES], scratch[SUM_L2 : SUM_L2 + LANES]
    scale = scratch[SCALE : SCALE + LANES]
    for lane in range(LANES):
        found = sum_lx[lane] / sum_l2[lane]
        found = found if sum_l2[lane] > _ZERO else _ZERO
        scale[lane] = found if abs(extreme[lane]) >= _LEAST else _ZERO
        extreme[lane] = _ONE if abs(extreme[lane]) >= _LEAST else _ZERO
    for i in range(SIZE):
        for lane in range(LANES):
            # a product, since LLVM stores a choice between old and new in slow masked steps
            levels[i * LANES + lane] *= extreme[lane]
