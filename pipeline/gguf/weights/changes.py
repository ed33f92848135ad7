"""What an adapter changes in one tensor of the base, some rows at a time."""

from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from pipeline.gguf.kernels.merge import add_low_rank, scale_rows, squared_norms
from pipeline.gguf.weights.checkpoint import F32, IntArray, Stored


class Step(Protocol):
    """One thing done to a tensor. Thread-safe."""

    def apply(self, weight: F32, rows: IntArray) -> F32:
        """`weight` [n, columns], or [n] for a vector, after the step; it may be changed in place.

        `rows` [n] tells which rows of the whole tensor these are, in any order.
        """
        ...


@dataclass(frozen=True, eq=False)
class LowRank:
    """Adds scale * B @ A in fp32: `a` [rank, columns], `b` [rows, rank].

    PEFT's Linear.merge does the same where adapter or base is fp32. With a 16-bit adapter it
    rounds scale * B @ A to 16 bits first and the sum once more (get_delta_weight).
    """

    a: Stored
    b: Stored
    scale: float

    def apply(self, weight: F32, rows: IntArray) -> F32:
        add_low_rank(weight, self.b.float32(rows), self.a.float32(), self.scale)
        return weight


@dataclass(frozen=True, eq=False)
class Dora:
    """magnitude * V / |V|, by rows, with V = W + scale * B @ A: `magnitude` [rows].

    DoraLinearVariant.merge_safe and DoraLinearLayer.get_weight_norm (peft/tuners/lora). PEFT takes
    the norm in the wider type of base and adapter, mostly fp32; here squares are summed in fp64.
    """

    added: LowRank
    magnitude: Stored

    def apply(self, weight: F32, rows: IntArray) -> F32:
        weight = self.added.apply(weight, rows)
        norms = np.sqrt(squared_norms(weight))
        with np.errstate(divide="ignore", invalid="ignore"):  # a row of zeros: found as not finite
            factors = self.magnitude.float32(rows) / norms
        scale_rows(weight, factors.astype(np.float32))
        return weight


@dataclass(frozen=True, eq=False)
class Replaced:
    """Whole rows come from the adapter, whatever the base holds: modules_to_save, resized."""

    values: Stored

    def apply(self, weight: F32, rows: IntArray) -> F32:
        return self.values.float32(rows)


@dataclass(frozen=True, eq=False)
class TrainedRows:
    """Some rows are replaced: `tokens` [t] ascending, and their `values` [t, columns].

    TrainableTokensLayer.merge.
    """

    tokens: IntArray
    order: IntArray
    """For each of `tokens`, its row in `values`."""
    values: Stored

    def apply(self, weight: F32, rows: IntArray) -> F32:
        nearest = np.searchsorted(self.tokens, rows).clip(max=len(self.tokens) - 1)
        hit = self.tokens[nearest] == rows
        weight[hit] = self.values.float32(self.order[nearest[hit]])
        return weight


@dataclass(frozen=True, eq=False)
class AddedBias:
    """Adds scale * the bias of lora_B to the base's bias, both [rows] (lora_bias)."""

    values: Stored
    scale: float

    def apply(self, weight: F32, rows: IntArray) -> F32:
        weight += np.float32(self.scale) * self.values.float32(rows)
        return weight


@dataclass(frozen=True, eq=False)
class Change:
    """All that the adapter does to one tensor, in order; with no steps, a copy of `source`.

    `source` names the base tensor whose rows `apply` wants; None where the adapter brings them all.
    `shape` is the result's, which may have more or fewer rows than the base's.
    """

    source: str | None
    shape: tuple[int, ...]
    steps: tuple[Step, ...]

    def apply(self, weight: F32, rows: IntArray) -> F32:
        """The changed rows in fp32, [n, columns] or [n]; thread-safe.

        `weight` holds the rows of `source` in fp32 and belongs to the caller, C-contiguous; it may
        be changed in place, and may hold anything where `source` is None. `rows` [n] tells which
        rows these are, in any order.
        """
        for step in self.steps:
            weight = step.apply(weight, rows)
        return weight

    def same_as(self, other: "Change") -> bool:
        """Whether both make the same tensor, as tied embeddings do."""
        return self.source == other.source and _same(self.steps, other.steps)


def _same(first: object, second: object) -> bool:
    if isinstance(first, Stored) and isinstance(second, Stored):
        return first.same_values(second)
    if isinstance(first, np.ndarray):
        return np.array_equal(first, second)  # type: ignore[arg-type]
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, LowRank | Dora | Replaced | TrainedRows | AddedBias):
        return type(first) is type(second) and all(
            _same(getattr(first, field.name), getattr(second, field.name))
            for field in fields(first)
        )
    return first == second
