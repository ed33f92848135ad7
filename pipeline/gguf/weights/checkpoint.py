"""Safetensors weights by name, read through one mapping a file.

Format and its limits: https://huggingface.co/docs/safetensors/index and the crate's tensor.rs.
"""

import json
import math
import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipeError
from pipeline.gguf.kernels import halves

F32 = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_READ = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Bits an element (safetensors' Dtype); a type that is not here is only refused when read."""
_MAX_HEADER = 100_000_000
"""MAX_HEADER_SIZE of safetensors."""
_MAX_DIMENSIONS = 8
_CHUNK = 1 << 20
"""Weights handled at a time where a whole tensor is looked through."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor in its file: a read-only view of its bits, and its type (BF16, F16 or F32).

    `bits` is uint16 for BF16, float16 for F16, float32 for F32, and unaligned where the file is.
    """

    bits: npt.NDArray[Any]
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.bits.shape

    def rows(self, index: slice | IntArray) -> npt.NDArray[Any]:
        """Bits [n, columns] of some rows, aligned: a view for a slice where it can be one."""
        bits = self.bits[index]
        return bits if bits.flags.aligned else bits.copy()

    def float32(self, index: slice | IntArray = slice(None)) -> F32:
        """The values of some rows in fp32, exactly; a C-contiguous copy."""
        return to_float32(np.ascontiguousarray(np.atleast_1d(self.bits)[index]), self.dtype)

    def transposed(self) -> "Stored":
        return Stored(self.bits.T, self.dtype)

    def same_values(self, other: "Stored") -> bool:
        """Whether both hold the same shape and values, whatever their types."""
        return self.shape == other.shape and all(
            np.array_equal(self.float32(rows), other.float32(rows)) for rows in self._chunks()
        )

    def any(self) -> bool:
        """Whether some value is not zero."""
        return any(self.float32(rows).any() for rows in self._chunks())

    def finite(self) -> bool:
        """Whether all values are neither NaN nor infinite."""
        return all(np.isfinite(self.float32(rows)).all() for rows in self._chunks())

    def _chunks(self) -> Iterator[slice]:
        step = max(1, _CHUNK // max(1, math.prod(self.shape[1:])))
        for start in range(0, self.shape[0] if self.shape else 1, step):
            yield slice(start, start + step)


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies: `offset` and `size` in bytes of the mapped file."""

    shard: Path
    data: mmap.mmap
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def to_float32(bits: npt.NDArray[Any], dtype: str) -> F32:
    """The values of C-contiguous bits (see Stored) in fp32, exactly; a new array."""
    if dtype == "F32":
        return bits.astype(np.float32)
    out = np.empty(bits.shape, np.float32)
    convert = halves.bf16_to_fp32 if dtype == "BF16" else halves.fp16_to_fp32
    convert(bits.reshape(-1).view(np.uint16), out.reshape(-1))
    return out


class Checkpoint:
    """Tensors by name over all shards. May be read from several threads at once.

    Raises PipeError for a torn or foreign shard, and for a name that two shards hold.
    """

    def __init__(self, shards: Iterable[Path]) -> None:
        self._where: dict[str, _Place] = {}
        for shard in shards:
            for name, place in _places(shard).items():
                if name in self._where:
                    raise PipeError(
                        f"{self._where[name].shard} and {shard} both hold the tensor {name}.",
                        "Keep the files of one checkpoint in the folder.",
                    )
                self._where[name] = place

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._place(name).shape

    def dtype(self, name: str) -> str:
        """BF16, F16 or F32. Raises PipeError for any other type."""
        place = self._place(name)
        if place.dtype not in _READ:
            raise PipeError(
                f"Tensor {name} of {place.shard} is {place.dtype}; BF16, F16 and F32 are read.",
                "Save it in one of these types.",
            )
        return place.dtype

    def read(self, name: str) -> Stored:
        """A view of the tensor in its file.

        Raises PipeError for a name that is not there and for a type other than BF16, F16 or F32.
        """
        place, dtype = self._place(name), self.dtype(name)
        bits: npt.NDArray[Any] = np.ndarray(
            place.shape, _READ[dtype], buffer=place.data, offset=place.offset
        )
        return Stored(bits, dtype)

    def will_need(self, name: str, start_row: int, stop_row: int) -> None:
        """Have the disk read these rows ahead."""
        self._advise(name, start_row, stop_row, "MADV_WILLNEED")

    def done_with(self, name: str, start_row: int, stop_row: int) -> None:
        """Give the memory of these rows back; reading them again is possible, from the cache."""
        self._advise(name, start_row, stop_row, "MADV_DONTNEED")

    def _advise(self, name: str, start_row: int, stop_row: int, advice: str) -> None:
        place = self._place(name)
        if place.size == 0 or not hasattr(mmap, advice):  # Windows has no advice to give
            return
        per_row = place.size // place.shape[0] if place.shape else place.size
        start = place.offset + start_row * per_row
        page = start // mmap.PAGESIZE * mmap.PAGESIZE
        length = min(place.offset + stop_row * per_row, len(place.data)) - page
        if length > 0:
            place.data.madvise(getattr(mmap, advice), page, length)

    def _place(self, name: str) -> _Place:
        if name not in self._where:
            raise PipeError(f"The weights lack the tensor {name}.", "Fetch the base again.")
        return self._where[name]


def _places(shard: Path) -> dict[str, _Place]:
    """The shard's tensors, each checked to lie inside the file and apart from the others."""
    try:
        with shard.open("rb") as file:
            head = file.read(8)
            if len(head) < 8:
                raise ValueError("it has no header")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        length = int.from_bytes(head, "little")
        if length > min(len(data) - 8, _MAX_HEADER):
            raise ValueError("its header is longer than the file or the format allows")
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        header.pop("__metadata__", None)
        places = {
            name: _located(name, entry, 8 + length, data, shard) for name, entry in header.items()
        }
        _check_apart(places, 8 + length, len(data))
    except (OSError, ValueError, RecursionError) as error:
        raise PipeError(
            f"{shard} is not a whole safetensors file: {error}.", "Fetch or make it again."
        ) from None
    return places


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header names a tensor twice")
    return found


def _located(name: str, entry: object, start: int, data: mmap.mmap, shard: Path) -> _Place:
    """One entry of the header. Raises ValueError where it does not describe a tensor."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{name} is no tensor")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (isinstance(dtype, str) and _counts(shape) and _counts(offsets)):
        raise ValueError(f"tensor {name} is not described")
    if len(shape) > _MAX_DIMENSIONS or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise ValueError(f"tensor {name} is described wrongly")
    begin, end = offsets
    if start + end > len(data):
        raise ValueError(f"tensor {name} ends beyond the file")
    if dtype in _BITS and math.prod(shape) * _BITS[dtype] != (end - begin) * 8:
        raise ValueError(f"tensor {name} of shape {shape} has {end - begin} bytes of {dtype}")
    return _Place(shard, data, dtype, tuple(shape), start + begin, end - begin)


def _counts(values: object) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 1 << 62 for value in values
    )


def _check_apart(places: Mapping[str, _Place], start: int, size: int) -> None:
    """The tensors fill the file without gap or overlap, as the safetensors library demands."""
    for name, place in sorted(places.items(), key=lambda item: (item[1].offset, item[1].size)):
        if place.offset != start:
            raise ValueError(f"tensor {name} does not begin where the one before it ends")
        start += place.size
    if start != size:
        raise ValueError(f"{size - start} bytes after the last tensor are of no tensor")
