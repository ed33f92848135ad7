"""Read a GGUF header in Python, before any native loader sees the file.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline.errors import PipeError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_ENTRIES = 1 << 20
_MAX_ARRAY = 1 << 24
_MAX_STRING = 1 << 24
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i",
    6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_BLOCK = 1 << 20


@dataclass(frozen=True)
class TensorInfo:
    """`shape` has the fastest dimension first; `offset` counts from the file's start."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    bytes: int


@dataclass(frozen=True)
class GgufFile:
    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]


def read_gguf(path: Path, hint: str = "Make it again: pipe export --force") -> GgufFile:
    """The header of a GGUF file whose tensors all lie inside it.

    Raises PipeError, with `hint`, for a file that is torn, foreign, or whose header lies.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Cursor(path, data).file()
    except FileNotFoundError:
        raise PipeError(
            f"There is no file {path}.", "Check the path; a run's own files: pipe chat --type TYPE"
        ) from None
    except (struct.error, ValueError, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise PipeError(f"{path} is not a whole GGUF file: {error}.", hint) from None


def different_tensors(a: Path, b: Path) -> list[str]:
    """Names of the tensors that only one file has, or whose shape, type or bytes differ; sorted.

    Their order in the files and the metadata do not count. Raises PipeError as `read_gguf` does.
    """
    ours, theirs = ({info.name: info for info in read_gguf(path).tensors} for path in (a, b))
    with a.open("rb") as file, b.open("rb") as other:
        different = {
            name
            for name in ours.keys() & theirs.keys()
            if not _same(file, ours[name], other, theirs[name])
        }
    return sorted(different | (ours.keys() ^ theirs.keys()))


def _same(a: IO[bytes], ours: TensorInfo, b: IO[bytes], theirs: TensorInfo) -> bool:
    if (ours.shape, ours.type) != (theirs.shape, theirs.type):
        return False
    a.seek(ours.offset)
    b.seek(theirs.offset)
    left = ours.bytes
    while left:
        block = a.read(min(left, _BLOCK))
        if not block or block != b.read(len(block)):
            return False
        left -= len(block)
    return True


class _Cursor:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._at = path, data, 0

    def file(self) -> GgufFile:
        if self._take(4) != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise ValueError(f"version {version} is unknown")
        tensor_count = self._count("<Q", _MAX_ENTRIES, "tensors")
        key_count = self._count("<Q", _MAX_ENTRIES, "metadata keys")
        metadata: dict[str, Any] = {}
        for _ in range(key_count):
            key = self._string()
            if key in metadata:
                raise ValueError(f"the key {key} stands twice")
            metadata[key] = self._value(self._number("<I"))
        infos = [self._tensor() for _ in range(tensor_count)]
        return GgufFile(self._path, metadata, self._placed(infos, metadata))

    def _placed(
        self, infos: list[TensorInfo], metadata: Mapping[str, Any]
    ) -> tuple[TensorInfo, ...]:
        alignment = metadata.get("general.alignment", 32)
        if not (isinstance(alignment, int) and alignment > 0 and alignment & (alignment - 1) == 0):
            raise ValueError(f"alignment {alignment} is not a power of two")
        start = -(-self._at // alignment) * alignment
        placed = [TensorInfo(i.name, i.shape, i.type, start + i.offset, i.bytes) for i in infos]
        for info in placed:
            if info.offset + info.bytes > len(self._data):
                raise ValueError(f"tensor {info.name} ends beyond the file")
        if len({info.name for info in placed}) < len(placed):
            raise ValueError("a tensor stands twice")
        return tuple(placed)

    def _tensor(self) -> TensorInfo:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        name = self._string()
        dimensions = self._count("<I", 4, "dimensions")
        shape = tuple(self._number("<Q") for _ in range(dimensions))
        kind = GGMLQuantizationType(self._number("<I"))
        offset = self._number("<Q")
        per_block, block_bytes = GGML_QUANT_SIZES[kind]
        weights = math.prod(shape)
        if weights % per_block:
            raise ValueError(f"tensor {name} does not fill its blocks")
        return TensorInfo(name, shape, kind.name, offset, weights // per_block * block_bytes)

    def _value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            raise ValueError(f"metadata type {kind} is unknown")
        inner = self._number("<I")
        if inner == _ARRAY:  # gguf_init_from_file takes none either
            raise ValueError("it has an array of arrays")
        length = self._count("<Q", _MAX_ARRAY, "array values")
        if inner in _SCALARS:
            code = _SCALARS[inner][1]
            layout = struct.Struct(f"<{length}{code}")
            return list(layout.unpack(self._take(layout.size)))
        return [self._value(inner) for _ in range(length)]

    def _string(self) -> str:
        return self._take(self._count("<Q", _MAX_STRING, "letters")).decode("utf-8")

    def _count(self, code: str, most: int, what: str) -> int:
        count = self._number(code)
        if count > most:
            raise ValueError(f"it claims {count} {what}")
        return int(count)

    def _number(self, code: str) -> Any:
        return struct.unpack(code, self._take(struct.calcsize(code)))[0]

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise ValueError("it ends in its header")
        taken = self._data[self._at : end]
        self._at = end
        return taken
