"""The base with the adapter in it; nothing is computed until some rows are read."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base import Base
from pipeline.errors import PipeError
from pipeline.gguf.kernels import halves
from pipeline.gguf.kernels.merge import finite
from pipeline.gguf.mix import Shape
from pipeline.gguf.models import Architecture, architecture_of, as_loaded
from pipeline.gguf.models.architecture import EMBEDDING
from pipeline.gguf.weights import Adapter, Change, Checkpoint, load_adapter
from pipeline.gguf.weights.checkpoint import to_float32

F32 = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_SLAB = 1 << 20
"""Weights a slab: 4 MiB of fp32 stay in the cache from merging to quantizing."""


@dataclass(frozen=True)
class Weight:
    """One tensor of the files to come; `shape` has rows first."""

    name: str
    source: str | None
    """Its name in the checkpoint; None for one that is computed, such as rope_freqs."""
    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows to store: a vector is one."""
        return self.shape[0] if len(self.shape) > 1 else 1

    @property
    def columns(self) -> int:
        return self.shape[-1]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Slab:
    """Rows `start` to `stop` of one weight: what one thread handles at a time."""

    weight: Weight
    start: int
    stop: int

    @property
    def size(self) -> int:
        return (self.stop - self.start) * self.weight.columns


@dataclass(frozen=True)
class Values:
    """A slab as a merged checkpoint holds it: [rows, columns] in bits of `dtype`, and in fp32."""

    bits: npt.NDArray[Any]
    dtype: str
    float32: F32


class Merged:
    """Every tensor of the files to come, in their order.

    Raises PipeError where base, adapter and configuration do not fit together.
    """

    def __init__(self, base: Checkpoint, adapter: Adapter | None, model: Architecture) -> None:
        if adapter and adapter.rows:
            model = model.resized(adapter.rows)
        self.base, self.model = base, model
        self.summary = adapter.summary if adapter else {}
        """What the adapter is, for the manifest."""
        self.changes = dict(adapter.changes) if adapter else {}
        self._extra = model.extra_tensors()
        placed = model.tensors({*base, *self.changes}, own_head=bool(adapter and adapter.own_head))
        self.weights = [Weight(each.name, each.source, self._shape(each.source)) for each in placed]
        self.weights += [Weight(name, None, array.shape) for name, array in self._extra.items()]
        self._orders = {
            weight.name: model.row_order(weight.name, weight.shape[0]) for weight in self.weights
        }

    @classmethod
    def open(cls, base: Base, adapter: Path | None) -> "Merged":
        """From their folders; `adapter` None takes the base as it is."""
        checkpoint = Checkpoint(base.shards())
        config = as_loaded(base.config, checkpoint)
        changes = load_adapter(adapter, checkpoint, config) if adapter else None
        return cls(checkpoint, changes, architecture_of(config))

    @property
    def dtype(self) -> str:
        """The embedding's type, BF16, F16 or F32: what the adapter brings anew is rounded to it."""
        return self.base.dtype(EMBEDDING)

    @property
    def parameters(self) -> int:
        return sum(weight.size for weight in self.weights if weight.source)

    def shapes(self) -> list[Shape]:
        """The tensors as the 16-bit file has them: matrices in the base's type, vectors in F32."""
        return [
            Shape(w.name, w.rows, w.columns, self.dtype if len(w.shape) > 1 else "F32")
            for w in self.weights
        ]

    def slabs(self) -> Iterator[Slab]:
        """All rows of all weights, in the files' order."""
        for weight in self.weights:
            step = max(1, _SLAB // weight.columns)
            for start in range(0, weight.rows, step):
                yield Slab(weight, start, min(start + step, weight.rows))

    def will_need(self, slab: Slab) -> None:
        """Have the disk read ahead."""
        if place := self._place(slab):
            self.base.will_need(*place)

    def done_with(self, slab: Slab) -> None:
        """Give back the memory of what was read: the base stays in the disk's cache alone."""
        if place := self._place(slab):
            self.base.done_with(*place)

    def read(self, slab: Slab) -> Values:
        """The slab, its q and k rows in llama.cpp's order. Thread-safe.

        Raises PipeError for NaN or infinity, naming the tensor.
        """
        source = slab.weight.source
        if source is None:
            computed = self._extra[slab.weight.name].reshape(1, -1)
            return Values(computed, "F32", computed)
        change = self.changes.get(source)
        rows = self._rows(slab)
        read = self._changed(change, rows) if change else self._stored(source, rows)
        if not finite(read.float32):
            raise PipeError(
                f"The exported tensor {source} holds NaN or infinity.",
                "Train again with a lower train.learning_rate, or fetch the base again.",
            )
        shape = (slab.stop - slab.start, slab.weight.columns)
        return Values(read.bits.reshape(shape), read.dtype, read.float32.reshape(shape))

    def _stored(self, source: str, rows: slice | IntArray) -> Values:
        stored = self.base.read(source)
        bits = np.ascontiguousarray(stored.rows(rows))
        return Values(bits, stored.dtype, to_float32(bits, stored.dtype))

    def _changed(self, change: Change, rows: slice | IntArray) -> Values:
        """Changed in fp32, then rounded to the tensor's own type, as a merged checkpoint is."""
        numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        if change.source is None:
            weight, dtype = np.empty((len(numbers), *change.shape[1:]), np.float32), self.dtype
        else:
            stored = self._stored(change.source, rows)
            weight, dtype = stored.float32, stored.dtype
        weight = np.ascontiguousarray(change.apply(weight, numbers))
        bits = _from_float32(weight, dtype)
        return Values(bits, dtype, to_float32(bits, dtype))

    def _rows(self, slab: Slab) -> slice | IntArray:
        """Which rows of the checkpoint's tensor these are; all of a vector."""
        vector = len(slab.weight.shape) == 1
        rows = slice(0, slab.weight.columns) if vector else slice(slab.start, slab.stop)
        order = self._orders[slab.weight.name]
        return rows if order is None else order[rows]

    def _place(self, slab: Slab) -> tuple[str, int, int] | None:
        """Which rows of which tensor a slab is read from; a permuted one from those around it."""
        change = self.changes.get(slab.weight.source or "")
        source = change.source if change else slab.weight.source
        if source is None or len(slab.weight.shape) == 1:
            return None
        rows = self.base.shape(source)[0]
        return source, min(slab.start, rows), min(slab.stop, rows)

    def _shape(self, source: str) -> tuple[int, ...]:
        change = self.changes.get(source)
        if stored := change.source if change else source:
            self.base.dtype(stored)  # refuses one that cannot be read
        shape = change.shape if change else self.base.shape(source)
        if shape != self.model.shape_of(source):
            raise PipeError(
                f"{source} is {list(shape)}; config.json makes it "
                f"{list(self.model.shape_of(source))}.",
                "config.json and the weights are not of the same model.",
            )
        return shape


def _from_float32(values: F32, dtype: str) -> npt.NDArray[Any]:
    """To nearest even, as torch rounds: uint16 bits, or fp32 as it is."""
    if dtype == "F32":
        return values
    out = np.empty(values.shape, np.uint16)
    convert = halves.fp32_to_bf16 if dtype == "BF16" else halves.fp32_to_fp16
    convert(values.reshape(-1), out.reshape(-1))
    return out
