"""A GGUF header as bytes. The gguf package's own packing takes a second for a Llama's vocabulary.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALIGNMENT = 32
"""Bytes; the format's default, which needs no key."""


@dataclass(frozen=True)
class TensorPlace:
    """One tensor of a file: `shape` has rows first, `offset` counts from where the data begin."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    bytes: int


@dataclass(frozen=True)
class Metadata:
    """Keys and values, packed once for all files that share them."""

    packed: bytes
    count: int

    @classmethod
    def of(cls, architecture: str, *parts: Callable[[Any], None]) -> "Metadata":
        """general.architecture and what each part adds to a gguf.GGUFWriter.

        The writer knows the names and types of the keys, some by the architecture.
        """
        from gguf import GGUFWriter

        writer = GGUFWriter(None, architecture)
        for part in parts:
            part(writer)
        values = writer.kv_data[0]
        return cls(b"".join(_pair(key, value) for key, value in values.items()), len(values))

    def without(self, other: "Metadata") -> "Metadata":
        """What follows the keys of `other`, with which this must begin."""
        return Metadata(self.packed.removeprefix(other.packed), self.count - other.count)

    def __add__(self, other: "Metadata") -> "Metadata":
        return Metadata(self.packed + other.packed, self.count + other.count)


def place(tensors: Iterable[tuple[str, tuple[int, ...], str, int]]) -> list[TensorPlace]:
    """Offsets for (name, shape, type, bytes), one after the other, each aligned."""
    placed: list[TensorPlace] = []
    offset = 0
    for name, shape, type, size in tensors:
        placed.append(TensorPlace(name, shape, type, offset, size))
        offset += aligned(size)
    return placed


def header(metadata: Metadata, tensors: Sequence[TensorPlace]) -> bytes:
    """Everything before the data, padded: the data begin where it ends."""
    from gguf import GGUF_MAGIC, GGUF_VERSION

    head = struct.pack("<IIQQ", GGUF_MAGIC, GGUF_VERSION, len(tensors), metadata.count)
    whole = head + metadata.packed + b"".join(map(_tensor, tensors))
    return whole.ljust(aligned(len(whole)), b"\0")


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _tensor(tensor: TensorPlace) -> bytes:
    from gguf import GGMLQuantizationType

    dimensions = tensor.shape[::-1]
    return (
        _string(tensor.name)
        + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        + struct.pack("<IQ", GGMLQuantizationType[tensor.type], tensor.offset)
    )


def _pair(key: str, value: Any) -> bytes:
    from gguf import GGUFValueType

    if value.type != GGUFValueType.ARRAY:
        return _string(key) + struct.pack("<I", value.type) + _scalar(value.type, value.value)
    items = value.value
    inner = value.sub_type if value.sub_type is not None else GGUFValueType.get_type(items[0])
    head = struct.pack("<IIQ", value.type, inner, len(items))
    if inner == GGUFValueType.STRING:
        return _string(key) + head + b"".join(map(_string, items))
    return _string(key) + head + struct.pack(f"<{len(items)}{_codes()[inner]}", *items)


def _scalar(type: Any, value: Any) -> bytes:
    from gguf import GGUFValueType

    if type == GGUFValueType.STRING:
        return _string(value)
    return struct.pack(f"<{_codes()[type]}", value)


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else bytes(text)
    return struct.pack("<Q", len(data)) + data


def _codes() -> Mapping[Any, str]:
    """struct's letters for the scalar types."""
    from gguf import GGUFValueType as Type

    return {
        Type.UINT8: "B", Type.INT8: "b", Type.UINT16: "H", Type.INT16: "h", Type.UINT32: "I",
        Type.INT32: "i", Type.UINT64: "Q", Type.INT64: "q", Type.FLOAT32: "f", Type.FLOAT64: "d",
        Type.BOOL: "?",
    }  # fmt: skip
