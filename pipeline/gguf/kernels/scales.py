"""Sub-blocks' scales (or minimums) as whole steps of one scale (ggml-quants.c make_qp_quants)."""

import numpy as np

from pipeline.gguf.kernels.lanes import F32, I32, helper, nearest_int
from pipeline.gguf.kernels.symmetric import ALL_ZERO

_ZERO = np.float32(0)
_ONE = np.float32(1)


@helper
def fit_scales(x: F32, weights: F32, top: int, levels: I32) -> np.float32:
    """Set `levels` [n] and return the scale for which they come closest to `x` [n], weighted.

    Levels are 0 to `top` for x from 0; ggml keeps them in bytes, so below 0 they wrap to 255.
    """
    largest = _ZERO
    for value in x:
        largest = value if value > largest else largest
    levels[:] = 0
    if largest < ALL_ZERO:
        return _ZERO
    inverse = _best_inverse(x, weights, top, largest)
    sum_xl = sum_l2 = _ZERO
    for i in range(len(x)):
        level = min(top, nearest_int(inverse * x[i]))
        levels[i] = level & 0xFF
        sum_xl += weights[i] * x[i] * np.float32(level)
        sum_l2 += weights[i] * np.float32(level) * np.float32(level)
    return _refine(x, weights, top, levels, sum_xl, sum_l2)


@helper
def _best_inverse(x: F32, weights: F32, top: int, largest: np.float32) -> np.float32:
    """The best of nine inverse scales around top / largest."""
    best_inverse = np.float32(top) / largest
    scale, best = _ONE / best_inverse, _ZERO
    for i in range(len(x)):
        off = x[i] - scale * np.float32(nearest_int(best_inverse * x[i]) & 0xFF)
        best += weights[i] * off * off
    for step in range(-4, 5):
        if step == 0:
            continue
        inverse = (np.float32(0.1) * np.float32(step) + np.float32(top)) / largest
        scale, error = _ONE / inverse, _ZERO
        for i in range(len(x)):
            off = x[i] - scale * np.float32(min(top, nearest_int(inverse * x[i])))
            error += weights[i] * off * off
        if error < best:
            best, best_inverse = error, inverse
    return best_inverse


@helper
def _refine(
    x: F32, weights: F32, top: int, levels: I32, sum_xl: np.float32, sum_l2: np.float32
) -> np.float32:
    """Up to five rounds that move one level at a time; the scale that fits in the end."""
    for _ in range(5):
        changed = False
        for i in range(len(x)):
            w, old = weights[i], np.float32(levels[i])
            xl, l2 = sum_xl - w * x[i] * old, sum_l2 - w * old * old
            if xl > _ZERO and l2 > _ZERO:
                level = min(top, nearest_int(x[i] * l2 / xl))
                xl += w * x[i] * np.float32(level)
                l2 += w * np.float32(level) * np.float32(level)
                if level != levels[i] and xl * xl * sum_l2 > sum_xl * sum_xl * l2:
                    levels[i] = level & 0xFF
                    sum_xl, sum_l2, changed = xl, l2, True
        if not changed:
            break
    return sum_xl / sum_l2 if sum_l2 > _ZERO else _ZERO
