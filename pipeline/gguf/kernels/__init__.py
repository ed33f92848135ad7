"""Quantization with the very bytes of llama.cpp's ggml_quantize_chunk, many blocks at a time."""

from collections.abc import Callable, Mapping
from importlib import import_module

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
Kernel = Callable[[F32, F32 | None, U8], None]
"""values [rows, columns], importance [columns] or None, out [rows, row_bytes]: fills `out`."""

BLOCKS: Mapping[str, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q8_0": (32, 34),
    "Q4_0": (32, 18),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}
"""Type name -> weights a block, bytes a block (ggml-common.h)."""

# each module lists its types in KERNELS; named, not imported, as all of them import this one
_MODULES = {
    "F32": "simple",
    "F16": "simple",
    "BF16": "simple",
    "Q8_0": "simple",
    "Q4_0": "simple",
    "Q5_0": "simple",
    "Q5_1": "simple",
    "Q2_K": "two_bits",
    "Q3_K": "three_bits",
    "Q4_K": "middle_bits",
    "Q5_K": "middle_bits",
    "Q6_K": "six_bits",
}


def row_bytes(type: str, columns: int) -> int:
    """Bytes of one row of `columns` weights.

    Raises ValueError where the columns do not fill blocks, or for a type that is not in BLOCKS.
    """
    if type not in BLOCKS:
        raise ValueError(f"{type} is none of {', '.join(BLOCKS)}")
    weights, size = BLOCKS[type]
    if columns % weights:
        raise ValueError(f"{columns} columns do not fill {type} blocks of {weights} weights")
    return columns // weights * size


def quantize(type: str, values: F32, importance: F32 | None = None) -> U8:
    """Quantize F32 [rows, columns], C-contiguous: uint8 [rows, row_bytes(type, columns)].

    `importance`, F32 [columns], weighs each column's error as llama.cpp's importance matrix does;
    F32, F16, BF16 and Q8_0 have no use for it. May run in several threads at once: it releases the
    GIL while it computes. The first call in a process loads the type's compiled code.
    Raises ValueError for columns that do not fill blocks or arrays of another shape or dtype.
    """
    if values.dtype != np.float32 or values.ndim != 2 or not values.flags.c_contiguous:
        raise ValueError("values must be float32 [rows, columns], C-contiguous")
    rows, columns = values.shape
    out = np.empty((rows, row_bytes(type, columns)), np.uint8)
    if importance is not None:
        if importance.dtype != np.float32 or importance.shape != (columns,):
            raise ValueError(f"importance must be float32 [{columns}]")
        importance = np.ascontiguousarray(importance)
    kernels: Mapping[str, Kernel] = import_module(f"{__name__}.{_MODULES[type]}").KERNELS
    if out.size:
        kernels[type](values, importance, out)
    return out
