"""What Q2_K and Q3_K share: sub-blocks of 16 weights in lanes, and levels of two bits.

Sub-block j of super-block s is lane j * supers + s of 16 * supers.
"""

from math import sqrt

import numpy as np

from pipeline.gguf.kernels.lanes import F32, U8, helper, spread_importance

BLOCK = 256
SIZE = 16
PARTS = BLOCK // SIZE
"""Sub-blocks of a super-block."""


@helper
def weigh(importance: F32, first: int, x: F32, w: F32, factor: np.float32) -> None:
    """Weights of the group that begins with super-block `first`: importance * sqrt(sigma2 + x * x).

    sigma2 is `factor` times the mean square of the super-block. `x` and `w` are lanes, flat
    [16, lanes]; `importance` is [super-blocks of a row, 256].
    """
    lanes = x.size // SIZE
    supers = lanes // PARTS
    spread_importance(importance, first, w, SIZE, lanes)
    sigma2 = np.zeros(lanes, np.float32)
    for j in range(PARTS):
        for i in range(SIZE):
            some = x[i * lanes + j * supers : i * lanes + (j + 1) * supers]
            for s in range(supers):
                sigma2[s] += some[s] * some[s]
    for s in range(supers):
        sigma2[s] = factor * sigma2[s] / np.float32(BLOCK)
    for lane in range(supers, lanes):
        sigma2[lane] = sigma2[lane - supers]
    for i in range(SIZE):
        value, weight = x[i * lanes : (i + 1) * lanes], w[i * lanes : (i + 1) * lanes]
        for lane in range(lanes):
            weight[lane] *= np.float32(sqrt(sigma2[lane] + value[lane] * value[lane]))


@helper
def gather(lanes: F32, s: int, supers: int, levels: U8) -> None:
    """Levels [256] of super-block `s` out of the lanes."""
    for j in range(PARTS):
        part, lane = levels[j * SIZE : (j + 1) * SIZE], lanes[j * supers + s :]
        for i in range(SIZE):
            part[i] = np.uint8(lane[i * PARTS * supers])


@helper
def pack_pairs(levels: U8, packed: U8) -> None:
    """Two bits of each level: weights l, l + 32, l + 64 and l + 96 of each half share a byte."""
    for half in range(2):
        some, quarters = packed[32 * half :], levels[128 * half :]
        for i in range(32):
            low = (quarters[i] & 3) | (quarters[i + 32] & 3) << 2
            some[i] = np.uint8(low | (quarters[i + 64] & 3) << 4 | (quarters[i + 96] & 3) << 6)
