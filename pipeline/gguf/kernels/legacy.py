"""Q4_0, Q5_0 and Q5_1 with an importance matrix, a block of 32 weights in each lane.

Follows ggml-quants.c: quantize_row_q4_0_impl, quantize_row_q5_0_impl, quantize_row_q5_1_impl.
"""

from math import sqrt

import numpy as np

from pipeline.gguf.kernels import F32, U8, asymmetric, symmetric
from pipeline.gguf.kernels.lanes import (
    Scratch,
    compiled,
    helper,
    nearest_clamped,
    put_half,
    steps,
    to_half,
)
from pipeline.gguf.kernels.simple import I32, put_fifth_bits, put_nibbles

_SIZE = 32
_ROWS = 4
_ZERO, _ONE, _INFINITY = np.float32(0), np.float32(1), np.float32(np.inf)
_DIVIDENDS4, _DIVIDENDS5 = symmetric.candidates(8), symmetric.candidates(16)
_TOP = np.float32(31)
_RATIOS = steps(31, -0.9, 0.05, 37)

_symmetric_scratch = Scratch(symmetric.SCRATCH)
_asymmetric_scratch = Scratch(asymmetric.SCRATCH)


def q4_0(values: F32, importance: F32, out: U8) -> None:
    """Fill `out` [rows, bytes] from `values` [rows, columns], weighed by `importance` [columns]."""
    _quantize_symmetric(
        values.reshape(-1, _SIZE), importance.reshape(-1, _SIZE), mean_squares(values),
        out.reshape(-1, 18), _DIVIDENDS4, _symmetric_scratch.floats,
    )  # fmt: skip


def q5_0(values: F32, importance: F32, out: U8) -> None:
    """As q4_0."""
    _quantize_symmetric(
        values.reshape(-1, _SIZE), importance.reshape(-1, _SIZE), mean_squares(values),
        out.reshape(-1, 22), _DIVIDENDS5, _symmetric_scratch.floats,
    )  # fmt: skip


def q5_1(values: F32, importance: F32, out: U8) -> None:
    """As q4_0."""
    _quantize_q5_1(
        values.reshape(-1, _SIZE), importance.reshape(-1, _SIZE), mean_squares(values),
        out.reshape(-1, 24), _RATIOS, _asymmetric_scratch.floats,
    )  # fmt: skip


@compiled
def mean_squares(values: F32) -> F32:
    """Mean square of each row of `values`, summed in order as ggml does: [rows].

    Four rows at a time, since each addition has to wait for the one before it.
    """
    means = np.empty(values.shape[0], np.float32)
    last = values.shape[0] - 1
    for i in range(0, values.shape[0], _ROWS):
        first, second = values[i], values[min(i + 1, last)]
        third, fourth = values[min(i + 2, last)], values[min(i + 3, last)]
        sum1 = sum2 = sum3 = sum4 = _ZERO
        for j in range(values.shape[1]):
            sum1 += first[j] * first[j]
            sum2 += second[j] * second[j]
            sum3 += third[j] * third[j]
            sum4 += fourth[j] * fourth[j]
        sums = (sum1, sum2, sum3, sum4)
        for n in range(min(_ROWS, values.shape[0] - i)):
            means[i + n] = sums[n] / np.float32(values.shape[1])
    return means


@compiled
def _quantize_symmetric(
    values: F32, importance: F32, means: F32, out: U8, dividends: F32, scratch: F32
) -> None:
    half = -dividends[0]
    x = scratch[symmetric.VALUES : symmetric.WEIGHTS]
    w = scratch[symmetric.WEIGHTS : symmetric.PRODUCTS]
    levels = np.empty(_SIZE, np.int32)
    pairs = levels.reshape(2, _SIZE // 2)
    for first in range(0, len(values), symmetric.LANES):
        some = values[first : first + symmetric.LANES]
        _spread(some, importance, means, first, x, w)
        symmetric.search_symmetric(scratch, _SIZE, half, dividends)
        for b in range(len(some)):
            inverse, block = scratch[symmetric.WON_INVERSE + b], out[first + b]
            _find_levels(some[b], inverse, half, levels)
            put_half(block, 0, to_half(scratch[symmetric.SCALE + b]))
            if block.size > 18:
                put_fifth_bits(block, 2, levels)
            put_nibbles(block, block.size - 16, pairs[0], pairs[1])


@compiled
def _quantize_q5_1(
    values: F32, importance: F32, means: F32, out: U8, ratios: F32, scratch: F32
) -> None:
    x = scratch[asymmetric.VALUES : asymmetric.VALUES + _SIZE * asymmetric.LANES]
    w = scratch[asymmetric.WEIGHTS : asymmetric.WEIGHTS + _SIZE * asymmetric.LANES]
    levels = np.empty(_SIZE, np.int32)
    pairs = levels.reshape(2, _SIZE // 2)
    for first in range(0, len(values), asymmetric.LANES):
        some = values[first : first + asymmetric.LANES]
        _spread(some, importance, means, first, x, w)
        asymmetric.search(scratch, _SIZE, _TOP, ratios, False)
        for b in range(len(some)):
            inverse, low = scratch[asymmetric.WON_INVERSE + b], scratch[asymmetric.WON_LOW + b]
            block, row = out[first + b], some[b]
            for j in range(row.size):
                levels[j] = np.int32(nearest_clamped(inverse * (row[j] - low), _ZERO, _TOP))
            # a block of -0 has range -0 here, where ggml has a scale of +0
            scale = scratch[asymmetric.SCALE + b] if inverse > -_INFINITY else _ZERO
            put_half(block, 0, to_half(scale))
            put_half(block, 2, to_half(_low(scratch, b, row)))
            put_fifth_bits(block, 4, levels)
            put_nibbles(block, 8, pairs[0], pairs[1])


@helper
def _low(scratch: F32, b: int, row: F32) -> np.float32:
    """The minimum to store: ggml keeps a zero's sign where the search went no further.

    A later candidate with the same inverse and scale would have had the same error.
    """
    low = np.float32(scratch[asymmetric.LOW + b])
    first = _TOP / scratch[asymmetric.HIGH + b]
    same_inverse = scratch[asymmetric.WON_INVERSE + b] == first
    if low == _ZERO and same_inverse and scratch[asymmetric.SCALE + b] == _ONE / first:
        for value in row[::-1]:
            if value == _ZERO:
                low = np.float32(value)
    return low


@helper
def _spread(blocks: F32, importance: F32, means: F32, first: int, x: F32, w: F32) -> None:
    """Block b to lane b of `x`, its weights to `w`: importance * sqrt(mean square + x * x).

    `means` is of rows, `importance` [blocks of a row, 32]; lanes without a block get zeros.
    """
    lanes = x.size // _SIZE
    if len(blocks) < lanes:
        x[:] = w[:] = _ZERO
    for b in range(len(blocks)):
        row, known = blocks[b], importance[(first + b) % len(importance)]
        mean = means[(first + b) // len(importance)]
        lane_x, lane_w = x[b:], w[b:]
        for i in range(_SIZE):
            lane_x[i * lanes] = row[i]
            lane_w[i * lanes] = known[i] * np.float32(sqrt(mean + row[i] * row[i]))


@helper
def _find_levels(row: F32, inverse: np.float32, half: np.float32, levels: I32) -> None:
    """Levels from 0; in a lane of zeros, whose inverse is 0, they are 0 and not the middle."""
    middle = half if inverse != _ZERO else _ZERO
    for j in range(row.size):
        levels[j] = np.int32(nearest_clamped(inverse * row[j], -half, half - _ONE) + middle)
