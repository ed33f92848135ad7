"""Quantization by hand: how int8, NF4 and FP4 turn weights into codes and back, in plain numpy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int8]
U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]

BLOCK = 64
"""Weights that share one scale in NF4 and FP4 (QLoRA, section 3; bitsandbytes' default)."""
GROUP = 256
"""Block scales that share one scale of their own under double quantization (QLoRA, section 3)."""
TINY = np.float32(1e-30)
"""Stands for the largest value of a block of zeros, which nothing can be divided by."""


@dataclass(frozen=True)
class Rounded:
    """Weights as one method keeps them."""

    codes: npt.NDArray[Any]
    """Whole numbers, in the weights' shape."""
    restored: F32
    """What the codes mean, in the weights' shape."""
    bits: float
    """Bits a weight, its share of the scales included."""


# --- int8: evenly spaced levels -------------------------------------------------------------------


def absmax_int8(weights: F32) -> tuple[I8, F32]:
    """Codes [rows, columns] from -127 to 127 and scales [rows]: code = round(w / scale).

    scale = max|w| / 127 of a row; zero stays zero and both sides are treated alike. This is the
    vector-wise quantization of LLM.int8() (https://arxiv.org/abs/2208.07339, section 2.1).
    """
    largest = np.maximum(np.abs(weights).max(axis=-1), TINY)
    codes = np.rint(weights * (np.float32(127) / largest)[:, None])
    return codes.astype(np.int8), largest / np.float32(127)


def from_absmax_int8(codes: I8, scales: F32) -> F32:
    """Weights [rows, columns] from codes and scales [rows]: w = code * scale."""
    return codes.astype(np.float32) * scales[:, None]


def zero_point_int8(weights: F32) -> tuple[I8, F32, I32]:
    """Codes [rows, columns] from -128 to 127, scales [rows], zero points [rows].

    scale = (max - min) / 255, and the zero point is the code that means 0: all 256 codes are used
    even where a row leans to one side (LLM.int8(), section 2.1, and torch's qint8). The range is
    widened to hold 0, so that 0 stays exactly 0.
    """
    low, high = np.minimum(weights.min(axis=-1), 0), np.maximum(weights.max(axis=-1), 0)
    scales = np.maximum((high - low) / np.float32(255), TINY)
    zeros = np.clip(-128 - np.rint(low / scales), -128, 127).astype(np.int32)
    steps = np.rint(weights * (np.float32(1) / scales)[:, None])
    codes = np.clip(steps + zeros[:, None], -128, 127)
    return codes.astype(np.int8), scales, zeros


def from_zero_point_int8(codes: I8, scales: F32, zeros: I32) -> F32:
    """Weights [rows, columns]: w = (code - zero point) * scale."""
    return (codes - zeros[:, None]).astype(np.float32) * scales[:, None]


# --- four bits: sixteen levels, and a scale for each block ----------------------------------------

NF4_LEVELS = np.array(
    [
        [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453],
        [-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0],
        [0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
        [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0],
    ],
    np.float32,
).reshape(-1)
"""NormalFloat 4 as published (QLoRA, appendix E, and bitsandbytes): what normal_levels() gives."""

_POSITIVE = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3], np.float32) / np.float32(12)
FP4_LEVELS = np.concatenate([_POSITIVE, -_POSITIVE])
"""bitsandbytes' FP4 by code: a sign bit, two of exponent, one of mantissa; see float_levels()."""


def normal_levels(offset: float = 0.9677083) -> F32:
    """NF4's 16 levels from the normal distribution's quantiles, ascending from -1 to 1.

    Between two neighbours lies about the same share of normal weights, so all codes are used
    alike. Seven quantiles below zero and eight above it, each side evenly spaced in probability,
    and zero itself, so that 0 stays exactly 0. `offset` is the outermost probability: 1 would
    be at infinity (https://arxiv.org/abs/2305.14314, section 3 and appendix E; create_normal_map
    in bitsandbytes/functional.py).
    """
    quantile = NormalDist().inv_cdf
    above = [quantile(p) for p in np.linspace(offset, 0.5, 9)[:-1]]
    below = [-quantile(p) for p in np.linspace(offset, 0.5, 8)[:-1]]
    levels = np.sort(np.array([*below, 0.0, *above]))
    return np.asarray(levels / levels.max(), np.float32)


def float_levels() -> F32:
    """FP4's 16 levels by code: sign, exponent e (2 bits), mantissa m (1 bit), over the largest.

    (1 + m/2) * 2^(4-e), and m/16 where e is 0: the exponent counts downwards, so code 3 is the
    largest, 12 (get_4bit_type in bitsandbytes/functional.py; IEEE's E2M1 has other values).
    """
    halves = np.array([0.0, 0.5])
    positive = [halves / 8, *((1 + halves) * 2.0 ** (4 - e) for e in (1, 2, 3))]
    levels = np.concatenate([*positive, *(-each for each in positive)])
    return np.asarray(levels / levels.max(), np.float32)


def quantize_blocks(values: F32, levels: F32, block: int = BLOCK) -> tuple[U8, F32]:
    """Codes [n] and each block's largest |value| [n / block]: the nearest level after division.

    `levels` [16 or 256] lie within -1 and 1; values [any shape] are taken row after row, so a
    block may reach into the next row. The last block may be short. A tie goes to the lower level
    (https://arxiv.org/abs/2110.02861, section 2.1; quantize_4bit of bitsandbytes).
    """
    blocks, absmax = in_blocks(values, block), absmax_of(values, block)
    scaled = blocks * (np.float32(1) / np.maximum(absmax, TINY))[:, None]
    order = np.argsort(levels, kind="stable")
    between = (levels[order][:-1] + levels[order][1:]) / np.float32(2)
    codes = order[np.searchsorted(between, np.clip(scaled, -1, 1), side="left")]
    return codes.reshape(-1)[: values.size].astype(np.uint8), absmax


def from_blocks(codes: U8, absmax: F32, levels: F32, block: int = BLOCK) -> F32:
    """Values [n] of codes [n]: the level times its block's absmax."""
    return levels[codes] * np.repeat(absmax, block)[: codes.size]


def absmax_of(values: F32, block: int = BLOCK) -> F32:
    """The largest |value| of each block [n / block]."""
    return np.asarray(np.abs(in_blocks(values, block)).max(axis=-1), np.float32)


def in_blocks(values: F32, block: int = BLOCK) -> F32:
    """Values [blocks, block], the last one filled up with zeros."""
    flat = values.reshape(-1)
    return np.pad(flat, (0, -flat.size % block)).reshape(-1, block)


# --- double quantization: the scales themselves in 8 bits -----------------------------------------


def dynamic_levels() -> F32:
    """The 256 levels of 8-bit dynamic quantization, ascending from -0.993 to 1.

    Seven decades; the larger the decade, the more levels it has (1, 2, 4 ... 64), on both sides,
    with 0 and 1 (https://arxiv.org/abs/1511.04561; create_dynamic_map in bitsandbytes).
    """
    found = [0.0, 1.0]
    for number in range(7):
        edges = np.linspace(0.1, 1, 2**number + 1, dtype=np.float32)
        middles = (edges[:-1] + edges[1:]) / np.float32(2) * 10.0 ** (number - 6)
        found += [*middles, *-middles]
    return np.sort(np.array(found, np.float32))


@dataclass(frozen=True)
class DoubleScales:
    """Block scales in 8 bits: the mean is taken off, then 256 of them share one scale."""

    codes: U8
    """[blocks], into dynamic_levels()."""
    absmax: F32
    """[blocks / 256]."""
    offset: np.float32
    """The mean of all block scales, which are all positive: without it half the codes were idle."""

    def restored(self) -> F32:
        """The block scales [blocks] that these stand for."""
        return from_blocks(self.codes, self.absmax, dynamic_levels(), GROUP) + self.offset


def double_quantize(absmax: F32) -> DoubleScales:
    """Block scales [blocks] in 8 bits (QLoRA, section 3; quantize_4bit of bitsandbytes)."""
    offset = absmax.mean(dtype=np.float64).astype(np.float32)
    codes, largest = quantize_blocks(absmax - offset, dynamic_levels(), GROUP)
    return DoubleScales(codes, largest, offset)


# --- each method on a whole matrix ----------------------------------------------------------------


def rounded_absmax_int8(weights: F32) -> Rounded:
    """[rows, columns]; one fp32 scale a row."""
    codes, scales = absmax_int8(weights)
    return Rounded(codes, from_absmax_int8(codes, scales), 8 + 32 / weights.shape[-1])


def rounded_zero_point_int8(weights: F32) -> Rounded:
    """[rows, columns]; one fp32 scale and one 8-bit zero point a row."""
    codes, scales, zeros = zero_point_int8(weights)
    restored = from_zero_point_int8(codes, scales, zeros)
    return Rounded(codes, restored, 8 + 40 / weights.shape[-1])


def rounded_4bit(weights: F32, levels: F32, *, double: bool = False) -> Rounded:
    """[rows, columns]; one fp32 scale a block, or 8 bits of it with double quantization."""
    codes, absmax = quantize_blocks(weights, levels)
    if double:
        absmax = double_quantize(absmax).restored()
    restored = from_blocks(codes, absmax, levels).reshape(weights.shape)
    return Rounded(codes.reshape(weights.shape), restored, bits_4bit(double=double))


def bits_4bit(*, double: bool) -> float:
    """4 + 32/64 = 4.5 bits a weight, or 4 + 8/64 + 32/(64*256) = 4.127 (QLoRA, section 3).

    One fp32 offset a matrix comes on top of the latter.
    """
    return 4 + (8 / BLOCK + 32 / (BLOCK * GROUP) if double else 32 / BLOCK)


METHODS: Mapping[str, Callable[[F32], Rounded]] = {
    "int8-absmax": rounded_absmax_int8,
    "int8-zero-point": rounded_zero_point_int8,
    "nf4": lambda weights: rounded_4bit(weights, NF4_LEVELS),
    "nf4-double": lambda weights: rounded_4bit(weights, NF4_LEVELS, double=True),
    "fp4": lambda weights: rounded_4bit(weights, FP4_LEVELS),
}
"""Name -> weights fp32 [rows, columns] as that method keeps them."""


def rms_error(weights: F32, restored: F32) -> float:
    """Root of the mean squared error, in the weights' unit."""
    return float(np.sqrt(np.mean(np.square(weights - restored, dtype=np.float64))))


def relative_error(weights: F32, restored: F32) -> float:
    """The RMS error over the weights' own RMS; 0 for weights that are all zero."""
    size = float(np.sqrt(np.mean(np.square(weights, dtype=np.float64))))
    return rms_error(weights, restored) / size if size else 0.0
