"""The row of weights that is explained, and what its matrix knows of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

import numpy as np

from pipeline.base import Base
from pipeline.errors import PipeError
from pipeline.gguf.weights.checkpoint import Checkpoint, Stored
from pipeline.study.explain.numbers import BLOCK, F32, U8, absmax_of, quantize_blocks

_FIRST_CHOICE = "self_attn.q_proj.weight"
_ROWS = 16 * BLOCK
"""Rows read at a time: whole blocks, however long a row is."""


@dataclass(frozen=True)
class Subject:
    """One row of one matrix of a base, whose four-bit blocks may begin in the row before."""

    model: str
    tensor: str
    row: int
    stored: Stored

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.stored.shape
        return rows, columns

    @cached_property
    def weights(self) -> F32:
        """[columns]"""
        return self.stored.float32(slice(self.row, self.row + 1)).reshape(-1)

    @property
    def first_block(self) -> int:
        """The number in the whole matrix of the block that holds the row's first weight."""
        return self.row * self.shape[1] // BLOCK

    @property
    def lead(self) -> int:
        """Weights of the row before that lie in that block: 0 where rows fill whole blocks."""
        return self.row * self.shape[1] % BLOCK

    def blockwise(self, levels: F32) -> tuple[U8, F32]:
        """Codes [columns] and scales [blocks of this row], as if the whole matrix was quantized."""
        columns = self.shape[1]
        start, end = self.first_block * BLOCK, (self.row + 1) * columns
        stop = -(-end // BLOCK) * BLOCK
        rows = slice(start // columns, -(-stop // columns))
        values = self.stored.float32(rows).reshape(-1)[start - rows.start * columns :]
        codes, scales = quantize_blocks(values[: stop - start], levels)
        return codes[self.lead : self.lead + columns], scales

    def of_block(self, scales: F32) -> F32:
        """Each weight's own [columns] of the scales of this row's blocks."""
        return np.repeat(scales, BLOCK)[self.lead :][: self.shape[1]]

    @cached_property
    def all_scales(self) -> F32:
        """The largest |weight| of every block of the matrix: their mean is the offset."""
        parts = range(0, self.shape[0], _ROWS)
        return np.concatenate(
            [absmax_of(self.stored.float32(slice(start, start + _ROWS))) for start in parts]
        )


def choose(base: Base, tensor: str | None, row: int) -> Subject:
    """A row of the named matrix, or of the first query projection.

    Raises PipeError for a tensor that is not there or no matrix, and for a row beyond its end.
    """
    weights = Checkpoint(base.shards())
    matrices = sorted(name for name in weights if len(weights.shape(name)) == 2)
    if not matrices:
        raise PipeError(f"{base.name} holds no matrix.", "Name another base: --set model.base=...")
    name = tensor or next((each for each in matrices if _FIRST_CHOICE in each), matrices[0])
    if name not in matrices:
        raise _no_matrix(name, list(weights), matrices)
    rows, columns = weights.shape(name)
    if not rows or not columns:
        raise PipeError(f"{name} has no weights: {rows} x {columns}.", "Name another matrix.")
    if not 0 <= row < rows:
        raise PipeError(f"{name} has no row {row}.", f"Its rows are 0 to {rows - 1}: --row N")
    found = Subject(base.title, name, row, weights.read(name))
    if not np.isfinite(found.weights).all():
        raise PipeError(f"Row {row} of {name} holds no finite numbers.", "Fetch the base again.")
    return found


def _no_matrix(name: str, names: Sequence[str], matrices: Sequence[str]) -> PipeError:
    if name in names:
        return PipeError(
            f"{name} is no matrix; vectors, such as norms, stay in 16 bits.",
            f"Name a matrix, such as {matrices[0]}.",
        )
    close = get_close_matches(name, matrices, 3, 0.3) or matrices[:3]
    return PipeError(f"The base has no tensor {name}.", f"There is: {', '.join(close)}.")
