"""The search for a scale and a minimum of each sub-block (make_qkx2_quants, make_qkx3_quants).

Sub-blocks of 32 or 16 weights lie side by side, a lane each, as `lanes.spread` lays them out. Every
loop over lanes has one short body and touches the scratch at constant offsets: that is what LLVM
turns into vectors. Eight weights of a lane are summed up before its sum is stored again.
"""

import numpy as np

from pipeline.gguf.kernels.lanes import F32, chosen, helper, nearest_clamped

LANES = 64
GROUP = 32 * LANES
"""Weights that fit in: 8 super-blocks in sub-blocks of 32, or half of that in sub-blocks of 16."""

# where each part of the scratch begins, in floats; constants, so that LLVM sees them apart
VALUES = 0
WEIGHTS = GROUP
LEVELS = 2 * GROUP
LOW = 3 * GROUP
HIGH = LOW + LANES
SCALE = HIGH + LANES
WON_INVERSE = SCALE + LANES
WON_LOW = WON_INVERSE + LANES
BEST = WON_LOW + LANES
INVERSE = BEST + LANES
SUM_W = INVERSE + LANES
SUM_X = SUM_W + LANES
SUM_L = SUM_X + LANES
SUM_L2 = SUM_L + LANES
SUM_XL = SUM_L2 + LANES
NEW_SCALE = SUM_XL + LANES
NEW_LOW = NEW_SCALE + LANES
ERROR = NEW_LOW + LANES
OLD_BEST = ERROR + LANES
OLD_SCALE = OLD_BEST + LANES
OLD_LOW = OLD_SCALE + LANES
OLD_WON_INVERSE = OLD_LOW + LANES
OLD_WON_LOW = OLD_WON_INVERSE + LANES
SPARE = OLD_WON_LOW + LANES
SCRATCH = SPARE + 8 * LANES

ZERO = np.float32(0)
ONE = np.float32(1)
INFINITY = np.float32(np.inf)


@helper
def search(scratch: F32, n: int, top: np.float32, ratios: F32, absolute: bool) -> None:
    """Find scale and low of every lane that fit its weights best with levels 0 to `top`.

    In: [n, LANES] at VALUES and at WEIGHTS, n a multiple of 8; `ratios`, what each step divides by
    the range; the errors to add up, squared or `absolute`. Out, [LANES] each: SCALE, LOW (at most
    0), and with which inverse scale and low the best levels were found: WON_INVERSE, WON_LOW.
    A constant lane gets scale 0 and an infinite inverse, which makes its levels 0.
    """
    _measure(scratch, n)
    _first_candidate(scratch, top)
    _set_levels(scratch, n, top)
    _add_errors(scratch, n, absolute)
    for lane in range(LANES):
        scratch[BEST + lane] = scratch[ERROR + lane]
    for ratio in ratios:
        _next_candidate(scratch, ratio)
        _set_levels(scratch, n, top)
        _add_sums(scratch, n)
        _solve(scratch)
        _add_errors(scratch, n, absolute)
        _keep_better(scratch)


@helper
def _measure(scratch: F32, n: int) -> None:
    """Range, sum of weights, and weighted sum of every lane."""
    for lane in range(LANES):
        scratch[LOW + lane], scratch[HIGH + lane] = INFINITY, -INFINITY
        scratch[SUM_W + lane] = scratch[SUM_X + lane] = ZERO
    for chunk in range(n // 8):
        first = chunk * (8 * LANES)
        for lane in range(LANES):
            low, high = scratch[LOW + lane], scratch[HIGH + lane]
            sum_w, sum_x = scratch[SUM_W + lane], scratch[SUM_X + lane]
            for i in range(8):
                at = first + i * LANES + lane
                x, w = scratch[VALUES + at], scratch[WEIGHTS + at]
                low = x if x < low else low
                high = x if x > high else high
                sum_w += w
                sum_x += w * x
            scratch[LOW + lane], scratch[HIGH + lane] = low, high
            scratch[SUM_W + lane], scratch[SUM_X + lane] = sum_w, sum_x


@helper
def _first_candidate(scratch: F32, top: np.float32) -> None:
    """The range, from 0 at most, spread over all levels."""
    for lane in range(LANES):
        low = scratch[LOW + lane] if scratch[LOW + lane] < ZERO else ZERO
        inverse = top / (scratch[HIGH + lane] - low)
        scratch[LOW + lane] = scratch[WON_LOW + lane] = scratch[NEW_LOW + lane] = low
        scratch[INVERSE + lane] = scratch[WON_INVERSE + lane] = inverse
        scratch[SCALE + lane] = scratch[NEW_SCALE + lane] = ONE / inverse
        scratch[ERROR + lane] = ZERO


@helper
def _next_candidate(scratch: F32, ratio: np.float32) -> None:
    for lane in range(LANES):
        scratch[OLD_BEST + lane] = scratch[BEST + lane]
        scratch[OLD_SCALE + lane] = scratch[SCALE + lane]
        scratch[OLD_LOW + lane] = scratch[LOW + lane]
        scratch[OLD_WON_INVERSE + lane] = scratch[WON_INVERSE + lane]
        scratch[OLD_WON_LOW + lane] = scratch[WON_LOW + lane]
        scratch[INVERSE + lane] = ratio / (scratch[HIGH + lane] - scratch[LOW + lane])
        scratch[SUM_L + lane] = scratch[SUM_L2 + lane] = scratch[SUM_XL + lane] = ZERO


@helper
def _set_levels(scratch: F32, n: int, top: np.float32) -> None:
    """The level of every weight, as a float."""
    for i in range(n):
        for lane in range(LANES):
            above = scratch[VALUES + i * LANES + lane] - scratch[LOW + lane]
            level = nearest_clamped(scratch[INVERSE + lane] * above, ZERO, top)
            scratch[LEVELS + i * LANES + lane] = level


@helper
def _add_sums(scratch: F32, n: int) -> None:
    """What the least squares need, weighted: sums of levels, of their squares, of products."""
    for chunk in range(n // 8):
        first = chunk * (8 * LANES)
        for lane in range(LANES):
            sum_l, sum_l2 = scratch[SUM_L + lane], scratch[SUM_L2 + lane]
            sum_xl = scratch[SUM_XL + lane]
            for i in range(8):
                at = first + i * LANES + lane
                level = scratch[LEVELS + at]
                weighted = scratch[WEIGHTS + at] * level
                sum_l += weighted
                sum_l2 += weighted * level
                sum_xl += weighted * scratch[VALUES + at]
            scratch[SUM_L + lane], scratch[SUM_L2 + lane] = sum_l, sum_l2
            scratch[SUM_XL + lane] = sum_xl


@helper
def _solve(scratch: F32) -> None:
    """Weighted least squares for these levels; without a solution the error starts at infinity."""
    for lane in range(LANES):
        sum_w, sum_x = scratch[SUM_W + lane], scratch[SUM_X + lane]
        sum_l, sum_l2 = scratch[SUM_L + lane], scratch[SUM_L2 + lane]
        sum_xl = scratch[SUM_XL + lane]
        determinant = sum_w * sum_l2 - sum_l * sum_l
        low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        above = low > ZERO
        dividend = sum_xl if above else sum_w * sum_xl - sum_x * sum_l
        scratch[NEW_SCALE + lane] = dividend / (sum_l2 if above else determinant)
        scratch[NEW_LOW + lane] = ZERO if above else low
        scratch[ERROR + lane] = ZERO if determinant > ZERO else INFINITY


@helper
def _add_errors(scratch: F32, n: int, absolute: bool) -> None:
    for chunk in range(n // 8):
        first = chunk * (8 * LANES)
        for lane in range(LANES):
            scale, low = scratch[NEW_SCALE + lane], scratch[NEW_LOW + lane]
            total = scratch[ERROR + lane]
            for i in range(8):
                at = first + i * LANES + lane
                off = scale * scratch[LEVELS + at] + low - scratch[VALUES + at]
                total += scratch[WEIGHTS + at] * (abs(off) if absolute else off * off)
            scratch[ERROR + lane] = total


@helper
def _keep_better(scratch: F32) -> None:
    # the old are loaded from elsewhere: otherwise LLVM makes masked stores, slow on AMD
    for lane in range(LANES):
        error, best = scratch[ERROR + lane], scratch[OLD_BEST + lane]
        old_low, inverse = scratch[OLD_LOW + lane], scratch[INVERSE + lane]
        better = error < best
        scratch[BEST + lane] = chosen(better, error, best)
        scratch[SCALE + lane] = chosen(better, scratch[NEW_SCALE + lane], scratch[OLD_SCALE + lane])
        scratch[LOW + lane] = chosen(better, scratch[NEW_LOW + lane], old_low)
        scratch[WON_INVERSE + lane] = chosen(better, inverse, scratch[OLD_WON_INVERSE + lane])
        scratch[WON_LOW + lane] = chosen(better, old_low, scratch[OLD_WON_LOW + lane])
