"""Whether the merge took effect: each tensor of a file against the base and the adapter's change.

Nothing of the export is used: names, q/k order and values are told by other means.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.check.tensors import F32, Stored, Weights, rows_of
from pipeline.engines.gguf_file import TensorInfo

_SAMPLE = 1 << 18
"""Weights looked at in a tensor, unless they cannot tell."""
_DEVIATIONS = 6
"""Standard errors that a coefficient may be off: 1 in a billion by chance."""
_SLACK = 0.02
"""Of the coefficient beside chance: scales of blocks round all their weights one way. Types from
Q3_K_S on are seen to keep 0.988 to 1.002 of the demo's change, Q2_K 0.976."""
_TELLS = 0.25
"""Above this bound a coefficient of 1 is too near to 0 or to 2 to be told from them."""


@dataclass(frozen=True)
class Fit:
    """How a tensor of a file lies between the base and what the adapter makes of it."""

    name: str
    error: float
    """Root mean square of what neither explains, over that of the tensor."""
    most: float
    """The most that its type can cause."""
    coefficient: float | None
    """<file - base, delta> / <delta, delta>: 1 if merged, 0 if not; None without a delta."""
    bound: float
    """How far from 1 the coefficient may be."""

    @property
    def tells(self) -> bool:
        """False where the change is lost in the noise of quantizing: nothing can be said."""
        return self.coefficient is None or self.bound <= _TELLS

    def fault(self) -> str | None:
        if not self.error <= self.most:  # NaN is a fault too
            return (
                f"{self.name} is not the base's tensor: {self.error:.3f} of it is unexplained, "
                f"its type explains {self.most:.3f}"
            )
        if self.coefficient is None or abs(self.coefficient - 1) <= self.bound or not self.tells:
            return None
        return (
            f"{self.name} has {self.coefficient:.3f} of the adapter's change, "
            f"not 1 ± {self.bound:.3f}"
        )


def fit(stored: Stored, tensor: TensorInfo, base: Weights, delta: F32 | None) -> Fit:
    """Look at some rows, evenly spaced, and at all where some cannot tell.

    `delta` is fp32 [rows, columns] with rows as in the checkpoint; None for a tensor that the
    adapter leaves alone.
    """
    some = max(1, _SAMPLE // tensor.shape[0])
    found = _fit(stored, tensor, base, delta, some)
    return found if found.tells else _fit(stored, tensor, base, delta, rows_of(tensor))


def _fit(stored: Stored, tensor: TensorInfo, base: Weights, delta: F32 | None, most: int) -> Fit:
    """With noise e of rms s, the coefficient's standard error is s / |delta|.

    It is least squares of file - base on delta: e is the rounding of single weights, as good as
    independent of delta.
    """
    rows = rows_of(tensor)
    at = np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))
    theirs, ours = stored.rows(tensor, at), base.rows(tensor.name, at)
    change = theirs - ours
    most_error = allowed_error(tensor.type)
    if delta is None:
        return Fit(tensor.name, _ratio(change, ours), most_error, None, 0.0)
    delta = delta[base.order(tensor.name, rows)[at]]
    energy = float(np.vdot(delta, delta))
    if energy == 0.0:
        return Fit(tensor.name, _ratio(change, ours), most_error, None, 0.0)
    coefficient = float(np.vdot(change, delta)) / energy
    noise = change - coefficient * delta
    bound = _SLACK + _DEVIATIONS * float(np.sqrt(np.mean(noise**2) / energy))
    return Fit(tensor.name, _ratio(noise, theirs), most_error, coefficient, bound)


def allowed_error(type: str) -> float:
    """The most that a type's rounding may be of a tensor, root mean square over root mean square.

    The 32 weights of a block span at most 8 of their root mean squares (two opposite ones are all
    there is), in 2^b steps, each of a rounding error of a step / sqrt(12); and half as much again
    for the rounding of the scales. b is the digit in the type's name, 8 for the mantissa of BF16.
    On the demo types stay below six tenths of it; another tensor of like size in the place of one,
    such as its own with rows in another order, is at sqrt(2).
    """
    bits = {"F32": 8, "F16": 8, "BF16": 8}.get(type)
    if bits is None:
        bits = next(int(letter) for letter in type if letter.isdigit())
    return float(1.5 * 8 / 2**bits / np.sqrt(12))


def _ratio(noise: F32, whole: F32) -> float:
    size = float(np.sqrt(np.mean(whole.astype(np.float64) ** 2)))
    return float(np.sqrt(np.mean(noise.astype(np.float64) ** 2))) / size if size else 0.0
