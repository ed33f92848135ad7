"""Read 16-bit safetensors weights one tensor at a time, from a mapping of the file.

Format: https://huggingface.co/docs/safetensors/index
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipeError

F32 = npt.NDArray[np.float32]
_STORED = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}


@dataclass(frozen=True)
class Stored:
    """A tensor in its file: raw bits, and the name of its type (BF16, F16 or F32)."""

    bits: npt.NDArray[Any]
    dtype: str

    def float32(self) -> F32:
        """The values in fp32, exactly."""
        if self.dtype == "BF16":
            return (self.bits.astype(np.uint32) << 16).view(np.float32)
        return self.bits.astype(np.float32)


class Checkpoint:
    """Tensors by name over all shards. Raises PipeError for a torn or foreign shard."""

    def __init__(self, shards: list[Path]) -> None:
        self._where: dict[str, tuple[Path, dict[str, Any], int]] = {}
        for shard in shards:
            header, start = _header(shard)
            for name, info in header.items():
                self._where[name] = (shard, info, start)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._where[name][1]["shape"])

    def dtype(self, name: str) -> str:
        return str(self._where[name][1]["dtype"])

    def read(self, name: str) -> Stored:
        """A view of the tensor in its file. Raises PipeError for a name that is not there."""
        if name not in self._where:
            raise PipeError(f"The weights lack the tensor {name}.", "Fetch the base again.")
        shard, info, start = self._where[name]
        kind = info["dtype"]
        if kind not in _STORED:
            raise PipeError(f"Tensor {name} is {kind}; a base has BF16, F16 or F32 weights.")
        begin = info["data_offsets"][0]
        bits = np.memmap(
            shard, _STORED[kind], "r", offset=start + begin, shape=tuple(info["shape"])
        )
        return Stored(bits, kind)


def to_bits(values: F32, dtype: str) -> npt.NDArray[Any]:
    """Round fp32 to BF16 (as uint16 bits), F16 or F32, to nearest even as torch does."""
    if dtype == "F32":
        return values
    if dtype == "F16":
        return values.astype(np.float16)
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def _header(shard: Path) -> tuple[dict[str, Any], int]:
    """The shard's tensors and where their data begins; every tensor lies inside the file."""
    size = shard.stat().st_size
    try:
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size, 100_000_000):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        start = 8 + length
        for name, info in header.items():
            if start + info["data_offsets"][1] > size:
                raise ValueError(f"tensor {name} ends beyond the file")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PipeError(
            f"{shard} is not a whole safetensors file: {error}.", "Fetch or make it again."
        ) from None
    return header, start
