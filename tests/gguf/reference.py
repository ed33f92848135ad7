"""The bytes that llama.cpp itself makes: its ggml_quantize_chunk, through ctypes."""

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

_F32 = npt.NDArray[np.float32]
_U8 = npt.NDArray[np.uint8]

GGML_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11,
    "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "BF16": 30,
}  # fmt: skip
"""Type name -> enum ggml_type (ggml.h)."""


def reference(type: str, values: _F32, importance: _F32 | None = None) -> _U8:
    """Quantize F32 [rows, columns] with ggml: uint8 [rows, row_bytes].

    `importance` is F32 [columns], the same for every row. Releases the GIL while it computes.
    """
    ggml, number = library(), GGML_TYPES[type]
    values = np.ascontiguousarray(values, np.float32)
    rows, columns = values.shape
    out = np.zeros((rows, ggml.ggml_row_size(number, columns)), np.uint8)
    if importance is not None:
        importance = np.ascontiguousarray(importance, np.float32)
        assert importance.shape == (columns,)
    written = ggml.ggml_quantize_chunk(
        number, _pointer(values), _pointer(out), 0, rows, columns, _pointer(importance)
    )
    assert written == out.nbytes
    return out


@cache
def library() -> Any:
    """ggml as llama-cpp-python built it, with the two signatures that `reference` calls."""
    from llama_cpp._ggml import libggml

    libggml.ggml_quantize_init.argtypes = [ctypes.c_int]
    libggml.ggml_quantize_init.restype = None
    libggml.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    libggml.ggml_row_size.restype = ctypes.c_size_t
    libggml.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    libggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    for number in GGML_TYPES.values():
        libggml.ggml_quantize_init(number)
    return libggml


def _pointer(array: npt.NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data
