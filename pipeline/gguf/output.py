"""One GGUF file being written: the header first, then slabs at their places, in any order."""

import errno
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xxhash import xxh3_128_digest

from pipeline.errors import PipeError
from pipeline.gguf.header import Metadata, header, place
from pipeline.gguf.kernels import row_bytes
from pipeline.gguf.merged import Slab, Weight
from pipeline.run.files import sync_file

_MANY = 64
"""Slabs after which it is worth to wait for the disk."""
_NO_RESERVATION = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


@dataclass(frozen=True)
class _Written:
    offset: int
    size: int
    digest: bytes


def finish(outputs: Sequence["Output"]) -> None:
    """Settle every file, then give all of them their names: all are there, or none.

    Raises PipeError as `Output.settle` does.
    """
    for output in outputs:
        output.settle()
    for output in outputs:
        output.publish()
    sync_file(outputs[0].path.parent)


class Output:
    """A file under a hidden name until `publish`, which may come once all is settled.

    `types` is the type of each tensor by its name. As a context it makes the file, and removes it
    where it was not published. Raises OSError (ENOSPC) there where the disk cannot hold it.
    """

    def __init__(
        self, path: Path, metadata: Metadata, weights: Sequence[Weight], types: Mapping[str, str]
    ) -> None:
        self.path, self.types = path, types
        sizes = {w.name: w.rows * row_bytes(types[w.name], w.columns) for w in weights}
        placed = place((w.name, w.shape, types[w.name], sizes[w.name]) for w in weights)
        self._header = header(metadata, placed)
        self._begins = {tensor.name: len(self._header) + tensor.offset for tensor in placed}
        self.bytes = max(self._begins[name] + size for name, size in sizes.items())
        self._unsettled: deque[_Written] = deque()
        self._part = path.with_name(f".{path.name}.part")

    def __enter__(self) -> "Output":
        self._file = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            self._reserve()
            self._write(self._header, 0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        self._part.unlink(missing_ok=True)

    def write(self, slab: Slab, rows: Any) -> None:
        """Put a slab's rows as they are stored, a buffer of whole rows, where they belong."""
        data = memoryview(rows).cast("B")
        begin = self._begins[slab.weight.name]
        self._write(data, begin + slab.start * (len(data) // (slab.stop - slab.start)))

    @property
    def wants_settling(self) -> bool:
        """Whether much was written since the disk was last waited for."""
        return len(self._unsettled) >= _MANY

    def settle(self) -> None:
        """Wait until the disk has what was written, and read it back from there.

        One thread may do so while others write. Raises PipeError where what is read is not what
        was written.
        """
        written = [self._unsettled.popleft() for _ in range(len(self._unsettled))]
        os.fsync(self._file)
        if hasattr(os, "posix_fadvise"):  # or the memory's copy would be read
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
        for each in written:
            if xxh3_128_digest(os.pread(self._file, each.size, each.offset)) != each.digest:
                raise PipeError(
                    f"{self.path.name} reads back differently at byte {each.offset:,}.",
                    "This disk loses data: export to another one.",
                )

    def publish(self) -> None:
        """Give the settled file its name."""
        self._part.replace(self.path)

    def _write(self, data: bytes | memoryview, offset: int) -> None:
        view = memoryview(data)
        written = _Written(offset, len(view), xxh3_128_digest(view))
        while view:
            count = os.pwrite(self._file, view, offset)
            view, offset = view[count:], offset + count
        self._unsettled.append(written)

    def _reserve(self) -> None:
        """Take the space now: a full disk is told before the work, not after it."""
        if not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self._file, 0, self.bytes)
        except OSError as error:
            if error.errno not in _NO_RESERVATION:
                raise
