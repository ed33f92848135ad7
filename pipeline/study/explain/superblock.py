"""GGUF's types on a row: each type's error, and one super-block of Q4_K taken apart."""

from dataclasses import dataclass

import numpy as np

from pipeline.gguf.kernels import BLOCKS, quantize
from pipeline.study.explain.numbers import F32, U8

TYPES = ("Q8_0", "Q6_K", "Q5_1", "Q5_0", "Q5_K", "Q4_K", "Q4_0", "Q3_K", "Q2_K")
"""Tensor types, those of more bits first."""
SHOWN = "Q4_K"
SUPER, _BLOCKS = 256, 8
"""Weights in a super-block, and blocks in it (QK_K and block_q4_K in ggml-common.h)."""


@dataclass(frozen=True)
class SuperBlocks:
    """A row in Q4_K: weight = scale * step * code - minimum * offset."""

    scales: F32
    """[super-blocks], fp16 in the file, as `minimums` are."""
    minimums: F32
    steps: U8
    """[super-blocks, 8]: 6 bits each, one for 32 weights; so are `offsets`."""
    offsets: U8
    codes: U8
    """[columns]: 0 to 15."""

    @property
    def spacing(self) -> F32:
        """[columns]: how far apart the levels of each weight's block are."""
        return np.repeat(self.scales[:, None] * self.steps, SUPER // _BLOCKS)

    @property
    def lowest(self) -> F32:
        """[columns]: what code 0 means in each weight's block."""
        return -np.repeat(self.minimums[:, None] * self.offsets, SUPER // _BLOCKS)

    def restored(self) -> F32:
        return self.spacing * self.codes + self.lowest


def in_type(type: str, row: F32) -> F32:
    """The row [columns] as the type of a GGUF file keeps it, by export's own kernels.

    Raises ValueError where the columns do not fill the type's blocks.
    """
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    found: F32 = dequantize(quantize(type, row[None, :]), GGMLQuantizationType[type])[0]
    return found


def taken_apart(row: F32) -> SuperBlocks:
    """The row [columns] in Q4_K, its bytes read as block_q4_K lays them (ggml-common.h).

    Raises ValueError where the columns do not fill super-blocks of 256.
    """
    from gguf.quants import Q4_K

    blocks = quantize(SHOWN, row[None, :]).reshape(-1, BLOCKS[SHOWN][1])
    halves = blocks[:, :4].copy().view(np.float16).astype(np.float32)
    steps, offsets = Q4_K.get_scale_min(blocks[:, 4:16].copy())
    packed = blocks[:, 16:].reshape(-1, 4, 1, 32)
    # of 64 weights the low nibbles are the first 32, the high ones the last
    codes = np.concatenate([packed & 0xF, packed >> 4], axis=2)
    return SuperBlocks(halves[:, 0], halves[:, 1], steps, offsets, codes.reshape(-1))


def bits(type: str) -> float:
    """Bits a weight of a type, its scales included."""
    weights, size = BLOCKS[type]
    return 8 * size / weights
