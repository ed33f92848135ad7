"""Merge arithmetic with one order of operations, so that every processor makes the same bytes."""

import numpy as np
import numpy.typing as npt

from pipeline.gguf.kernels.lanes import F32, Scratch, compiled, helper

F64 = npt.NDArray[np.float64]

_TERMS = 8
"""Ranks added in one sweep over the sums; `_add_terms` writes them out."""
_COLUMNS, _ROWS = 512, 16
"""A tile: its sums and eight rows of A stay in the first-level cache."""
_APART = 256
"""Floats between the sums and A: at the same offset in a page, loads would wait for stores."""
_LANES = 64
_SCRATCH = Scratch(_ROWS * _COLUMNS + _APART + _TERMS * (_COLUMNS + 1))


def add_low_rank(weight: F32, b: F32, a: F32, scale: float) -> None:
    """Add scale * B @ A to `weight` [rows, columns] in place, in fp32.

    `b` is [rows, rank], `a` is [rank, columns]. Each sum runs over the ranks in ascending order
    without fused multiply-adds, is then scaled and added: BLAS promises no order. Raises ValueError
    where the shapes do not fit.
    """
    if b.shape[1] != a.shape[0] or weight.shape != (b.shape[0], a.shape[1]):
        raise ValueError(f"B {b.shape} times A {a.shape} does not fit {weight.shape}")
    b, a = np.ascontiguousarray(b), np.ascontiguousarray(a)
    _add_low_rank(weight, b, a, np.float32(scale), _SCRATCH.floats)


def finite(values: F32) -> bool:
    """Whether C-contiguous `values` hold neither NaN nor infinity."""
    return bool(_largest_bits(values.reshape(-1)) < 0x7F800000)


@compiled
def scale_rows(weight: F32, factors: F32) -> None:
    """Multiply each row of `weight` [rows, columns] by its factor [rows], in place."""
    for i in range(weight.shape[0]):
        row, factor = weight[i], factors[i]
        for j in range(row.size):
            row[j] *= factor


@compiled
def squared_norms(weight: F32) -> F64:
    """Sum of squares of each row of `weight` [rows, columns], in fp64: [rows].

    Column j adds to partial sum j mod 64; the partial sums are then added in order.
    """
    norms = np.zeros(weight.shape[0], np.float64)
    partial = np.empty(_LANES, np.float64)
    for i in range(weight.shape[0]):
        partial[:] = 0.0
        for start in range(0, weight.shape[1], _LANES):
            part = weight[i, start : start + _LANES]
            for j in range(part.size):
                partial[j] += np.float64(part[j]) * np.float64(part[j])
        for j in range(_LANES):
            norms[i] += partial[j]
    return norms


@compiled
def _add_low_rank(weight: F32, b: F32, a: F32, scale: np.float32, scratch: F32) -> None:
    sums = scratch[: _ROWS * _COLUMNS].reshape(_ROWS, _COLUMNS)
    rest = scratch[_ROWS * _COLUMNS + _APART :]
    for start in range(0, weight.shape[1], _COLUMNS):
        for first in range(0, weight.shape[0], _ROWS):
            rows = min(_ROWS, weight.shape[0] - first)
            sums[:] = np.float32(0)
            for k in range(0, a.shape[0], _TERMS):
                right = _rows_of_a(a, k, start, rest)
                for i in range(rows):
                    _add_terms(sums[i], _row_of_b(b[first + i], k, rest), right)
            for i in range(rows):
                _add_scaled(weight[first + i, start : start + _COLUMNS], sums[i], scale)


@helper
def _rows_of_a(a: F32, k: int, start: int, scratch: F32) -> F32:
    """Eight rows of A in scratch; rows that are not there are 0, and change no sum's bits."""
    right = scratch[: _TERMS * _COLUMNS].reshape(_TERMS, _COLUMNS)
    for n in range(_TERMS):
        target = right[n]
        if k + n < a.shape[0]:
            # a slice of both axes at once would lose its contiguity, and the loop its vectors
            source = a[k + n, start : start + _COLUMNS]
            for j in range(source.size):
                target[j] = source[j]
        else:
            target[:] = np.float32(0)
    return right


@helper
def _row_of_b(row: F32, k: int, scratch: F32) -> F32:
    left = scratch[_TERMS * _COLUMNS :]
    for n in range(_TERMS):
        left[n] = row[k + n] if k + n < row.size else np.float32(0)
    return left


@helper
def _add_terms(sums: F32, left: F32, right: F32) -> None:
    b0, b1, b2, b3 = left[0], left[1], left[2], left[3]
    b4, b5, b6, b7 = left[4], left[5], left[6], left[7]
    a0, a1, a2, a3 = right[0], right[1], right[2], right[3]
    a4, a5, a6, a7 = right[4], right[5], right[6], right[7]
    for j in range(sums.size):
        total = sums[j] + b0 * a0[j]
        total += b1 * a1[j]
        total += b2 * a2[j]
        total += b3 * a3[j]
        total += b4 * a4[j]
        total += b5 * a5[j]
        total += b6 * a6[j]
        sums[j] = total + b7 * a7[j]


@helper
def _add_scaled(row: F32, sums: F32, scale: np.float32) -> None:
    for j in range(row.size):
        row[j] += scale * sums[j]


@compiled
def _largest_bits(values: F32) -> np.int32:
    words = values.view(np.int32)
    largest = np.int32(0)
    for i in range(words.size):
        largest = max(largest, words[i] & np.int32(0x7FFFFFFF))
    return largest
