"""The search for a scale of each sub-block, without a minimum (ggml-quants.c make_qx_quants).

Sub-blocks lie in lanes as in asymmetric.py, twice as many: with fewer weights to a lane, it takes
more of them to keep the vector units busy between two steps.
"""

import numpy as np

from pipeline.gguf.kernels.lanes import F32, chosen, helper, nearest_small

LANES = 128

# where each part of the scratch begins, in floats; constants, so that LLVM sees them apart
VALUES = 0
WEIGHTS = VALUES + 32 * LANES
PRODUCTS = WEIGHTS + 32 * LANES
"""Weight times value."""
LARGEST = PRODUCTS + 32 * LANES
"""The value of largest magnitude, with its sign."""
INVERSE = LARGEST + LANES
SUM_XL = INVERSE + LANES
SUM_L2 = SUM_XL + LANES
BEST = SUM_L2 + LANES
SCALE = BEST + LANES
WON_INVERSE = SCALE + LANES
OLD_BEST = WON_INVERSE + LANES
OLD_SCALE = OLD_BEST + LANES
OLD_WON_INVERSE = OLD_SCALE + LANES
SPARE = OLD_WON_INVERSE + LANES
SCRATCH = SPARE + 16 * LANES

ALL_ZERO = np.float32(1e-15)
"""ggml-quants.c GROUP_MAX_EPS: below it, a magnitude counts as zero."""
_ZERO = np.float32(0)


def candidates(half: int) -> F32:
    """Dividends, fp32 [19], for levels -half to half - 1: -half first, then 0.1 apart around it."""
    around = np.array([0, *range(-9, 0), *range(1, 10)], np.float32)
    return -(np.float32(half) + np.float32(0.1) * around)


@helper
def search_symmetric(scratch: F32, n: int, half: np.float32, dividends: F32) -> None:
    """Find the scale of every lane that fits its weights best with levels -half to half - 1.

    In: [n, LANES] at VALUES and at WEIGHTS, n a multiple of 8 up to 32; `candidates(half)`. Out,
    [LANES] each: SCALE, and WON_INVERSE, with which the best levels were found. Both are 0 in a
    lane that counts as zero, and WON_INVERSE in no other.
    """
    _measure(scratch, n)
    _next_candidate(scratch, dividends[0])
    _add_sums(scratch, n, half)
    _keep_first(scratch)
    for step in range(1, len(dividends)):
        _next_candidate(scratch, dividends[step])
        _add_sums(scratch, n, half)
        _keep_better(scratch)
    for lane in range(LANES):
        some = abs(scratch[LARGEST + lane]) >= ALL_ZERO
        scratch[SCALE + lane] = scratch[SCALE + lane] if some else _ZERO
        scratch[WON_INVERSE + lane] = scratch[WON_INVERSE + lane] if some else _ZERO


@helper
def _measure(scratch: F32, n: int) -> None:
    for lane in range(LANES):
        scratch[LARGEST + lane] = _ZERO
    for chunk in range(n // 8):
        first = chunk * (8 * LANES)
        for lane in range(LANES):
            largest = scratch[LARGEST + lane]
            for i in range(8):
                x = scratch[VALUES + first + i * LANES + lane]
                largest = chosen(abs(x) > abs(largest), x, largest)
            scratch[LARGEST + lane] = largest
    for i in range(n):
        for lane in range(LANES):
            at = i * LANES + lane
            scratch[PRODUCTS + at] = scratch[WEIGHTS + at] * scratch[VALUES + at]


@helper
def _next_candidate(scratch: F32, dividend: np.float32) -> None:
    for lane in range(LANES):
        scratch[OLD_BEST + lane] = scratch[BEST + lane]
        scratch[OLD_SCALE + lane] = scratch[SCALE + lane]
        scratch[OLD_WON_INVERSE + lane] = scratch[WON_INVERSE + lane]
        scratch[INVERSE + lane] = dividend / scratch[LARGEST + lane]
        scratch[SUM_XL + lane] = scratch[SUM_L2 + lane] = _ZERO


@helper
def _add_sums(scratch: F32, n: int, half: np.float32) -> None:
    """What the least squares need: weighted sums of value times level and of level squared."""
    for chunk in range(n // 8):
        first = chunk * (8 * LANES)
        for lane in range(LANES):
            inverse = scratch[INVERSE + lane]
            sum_xl, sum_l2 = scratch[SUM_XL + lane], scratch[SUM_L2 + lane]
            for i in range(8):
                at = first + i * LANES + lane
                x = scratch[VALUES + at]
                # at most half + 1 but where all counts as zero, whose scale is set in the end
                level = nearest_small(inverse * x, -half, half - np.float32(1))
                sum_xl += scratch[PRODUCTS + at] * level
                sum_l2 += scratch[WEIGHTS + at] * level * level
            scratch[SUM_XL + lane], scratch[SUM_L2 + lane] = sum_xl, sum_l2


@helper
def _keep_first(scratch: F32) -> None:
    for lane in range(LANES):
        sum_xl, sum_l2 = scratch[SUM_XL + lane], scratch[SUM_L2 + lane]
        scale = chosen(sum_l2 != _ZERO, sum_xl / sum_l2, _ZERO)
        scratch[SCALE + lane] = scale
        scratch[BEST + lane] = scale * sum_xl
        scratch[WON_INVERSE + lane] = scratch[INVERSE + lane]


@helper
def _keep_better(scratch: F32) -> None:
    # the old are loaded from elsewhere: otherwise LLVM makes masked stores, slow on AMD
    for lane in range(LANES):
        sum_xl, sum_l2 = scratch[SUM_XL + lane], scratch[SUM_L2 + lane]
        best, inverse = scratch[OLD_BEST + lane], scratch[INVERSE + lane]
        better = (sum_l2 > _ZERO) & (sum_xl * sum_xl > best * sum_l2)
        scale = sum_xl / sum_l2
        scratch[SCALE + lane] = chosen(better, scale, scratch[OLD_SCALE + lane])
        scratch[BEST + lane] = chosen(better, scale * sum_xl, best)
        scratch[WON_INVERSE + lane] = chosen(better, inverse, scratch[OLD_WON_INVERSE + lane])
