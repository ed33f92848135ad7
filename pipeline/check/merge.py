"""Whether the training is in a file: each tensor against the base and what training changed in it.

Nothing of the export is used: names, q/k order and values are told by other means.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.check.tensors import F32, Saved, Stored, Weights, rows_of
from pipeline.engines.gguf_file import TensorInfo

ADAPTER, TRAINING = "adapter's", "training's"
"""Whose change a file is to hold: of a run that was trained in full there is no adapter."""
_EXACT = ("F32", "F16", "BF16")
_CHUNK = 1 << 16
"""Weights looked at together: what is wrong in one row shows, and it stays near a core."""
_DEVIATIONS = 6
"""Standard errors that a coefficient may be off: 1 in a billion by chance."""
_SLACK = 0.02
_NARROW = {2: 0.10, 3: 0.05}
"""Of the coefficient beside chance, and more of it for types of so many bits: scales of blocks
round all their weights one way. From 4 bits on 0.992 to 1.002 of a change is kept; with an
importance matrix Q3_K is seen to keep 0.971 of one, Q2_K 0.928."""
_TELLS = 0.25
"""Above this bound a coefficient of 1 is too near to 0 or to 2 to be told from them."""
_FAINT = 0.1
"""Weights below this share of their tensor's root mean square are rounded as if they had it: rows
of tokens that were never trained are all but 0, and no scale is as small."""


@dataclass(frozen=True)
class Fit:
    """How a tensor of a file lies between the base and what training makes of it."""

    name: str
    error: float
    """Root mean square of what neither explains, over that of the tensor, where it is most."""
    most: float
    """The most that its type can cause."""
    coefficient: float | None
    """<file - base, delta> / <delta, delta>: 1 if merged, 0 if not; None without a delta."""
    deviation: float = 0.0
    """Standard error of the coefficient."""
    slack: float = _SLACK
    """What its type's rounding may take from the coefficient beside chance."""
    whose: str = ADAPTER
    differing: int | None = None
    """Weights that are not the trained model's, rounded to the type; None where the type has blocks
    or there is no such model."""

    @property
    def is_exact(self) -> bool:
        """Whether it changed and is the trained tensor to the bit."""
        return self.differing == 0 and self.coefficient is not None

    @property
    def bound(self) -> float:
        """How far from 1 the coefficient may be."""
        return self.slack + _DEVIATIONS * self.deviation

    @property
    def tells(self) -> bool:
        """False where the change is lost in the noise of quantizing: nothing can be said."""
        return self.coefficient is None or self.bound <= _TELLS

    def fault(self) -> str | None:
        if self.differing:
            return f"{self.name} is not the trained tensor: {self.differing:,} weights differ"
        if not self.error <= self.most:  # NaN is a fault too
            return (
                f"{self.name} is not the base's tensor: {self.error:.3f} of it is unexplained, "
                f"its type explains {self.most:.3f}"
            )
        if self.coefficient is None or abs(self.coefficient - 1) <= self.bound or not self.tells:
            return None
        return (
            f"{self.name} has {self.coefficient:.3f} of the {self.whose} change, "
            f"not 1 ± {self.bound:.3f}"
        )


class Change:
    """What training in full changed in one tensor; fp32 rows as in the checkpoint, when asked."""

    def __init__(self, before: Saved, after: Saved) -> None:
        self._before, self._after = before, after

    def __getitem__(self, rows: NDArray[np.int64]) -> F32:
        return self._after.at(rows) - self._before.at(rows)


def fit(stored: Stored, tensor: TensorInfo, base: Weights, delta: F32 | Change | None) -> Fit:
    """Look at every row of a tensor.

    `delta` is fp32 [rows, columns] with rows as in the checkpoint; None for a tensor that training
    left alone. With noise e of rms s, the coefficient's standard error is s / |delta|:
    it is least squares of file - base on delta, and e is the rounding of single weights, as good
    as independent of delta.
    """
    sums = np.array(list(_sums(stored, tensor, base, delta)))
    count, theirs, change, shared, energy = sums.T
    whole, most = float(energy.sum()), allowed_error(tensor.type)
    if whole == 0.0:
        return Fit(tensor.name, _worst(change, theirs, count), most, None)
    coefficient = float(shared.sum()) / whole
    noise = change - 2 * coefficient * shared + coefficient**2 * energy
    deviation = float(np.sqrt(np.maximum(noise, 0).sum() / count.sum() / whole))
    slack = _NARROW.get(bits_of(tensor.type), _SLACK)
    return Fit(tensor.name, _worst(noise, theirs, count), most, coefficient, deviation, slack)


def differing(stored: Stored, tensor: TensorInfo, model: Weights) -> int | None:
    """How many weights are not the model's own, rounded to the tensor's type to nearest even.

    None for a type of blocks, which has no weights of its own.
    """
    if tensor.type not in _EXACT:
        return None
    return sum(
        int(np.count_nonzero(stored.rows(tensor, at) != _rounded(model, tensor, at)))
        for at in _chunks(tensor)
    )


def _rounded(model: Weights, tensor: TensorInfo, at: NDArray[np.int64]) -> F32:
    values = model.rows(tensor.name, at)
    if tensor.type == "F16":
        return values.astype(np.float16).astype(np.float32)
    if tensor.type == "BF16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    return values


def pooled(fits: Sequence[Fit]) -> Fit | None:
    """One file's changed tensors as if they were one: what is lost in each may show in all.

    Coefficients are weighed by their inverse variances. None where training changed none.
    """
    told = [(f.coefficient, f.deviation, f.slack) for f in fits if f.coefficient is not None]
    if not told:
        return None
    coefficients, deviations, slacks = np.array(told).T
    weights = 1 / np.maximum(deviations, 1e-9) ** 2
    return Fit(
        "the file, its tensors together,",
        0.0,
        0.0,
        float(np.average(coefficients, weights=weights)),
        float(1 / np.sqrt(weights.sum())),
        float(np.average(slacks, weights=weights)),
        fits[0].whose,
    )


def _sums(
    stored: Stored, tensor: TensorInfo, base: Weights, delta: F32 | Change | None
) -> Iterator[tuple[float, ...]]:
    """Of each chunk: weights, |file|^2, |file - base|^2, <file - base, delta>, |delta|^2."""
    order = base.order(tensor.name, rows_of(tensor))
    for at in _chunks(tensor):
        theirs = stored.rows(tensor, at)
        change = theirs - base.rows(tensor.name, at)
        part = np.zeros(1, np.float32) if delta is None else delta[order[at]]
        shared = 0.0 if delta is None else float(np.vdot(change, part))
        squares = (float(np.vdot(each, each)) for each in (theirs, change, part))
        own, changed, energy = squares
        yield float(theirs.size), own, changed, shared, energy


def _chunks(tensor: TensorInfo) -> Iterator[NDArray[np.int64]]:
    """The tensor's rows, some at a time."""
    rows, step = rows_of(tensor), max(1, _CHUNK // tensor.shape[0])
    for start in range(0, rows, step):
        yield np.arange(start, min(start + step, rows))


def _worst(
    noise: NDArray[np.float64], whole: NDArray[np.float64], count: NDArray[np.float64]
) -> float:
    """The largest root mean square of noise over that of the weights, of all chunks."""
    faint = _FAINT**2 * whole.sum() / count.sum() * count
    size = np.maximum(whole, faint)
    shares = np.divide(noise, size, out=np.where(noise > 0, np.inf, noise), where=size != 0)
    return float(np.sqrt(np.maximum(shares, 0.0)).max())


def bits_of(type: str) -> int:
    """The digit in the type's name; 8 for floats, after the mantissa of BF16."""
    if type in {"F32", "F16", "BF16"}:
        return 8
    return next(int(letter) for letter in type if letter.isdigit())


def allowed_error(type: str) -> float:
    """The most that a type's rounding may be of a tensor, root mean square over root mean square.

    The 32 weights of a block span at most 8 of their root mean squares (two opposite ones are all
    there is), in 2^b steps, each of a rounding error of a step / sqrt(12); and half as much again
    for the rounding of the scales. b is the type's bits.
    On the demo types stay below six tenths of it; another tensor of like size in the place of one,
    such as its own with rows in another order, is at sqrt(2).
    """
    return float(1.5 * 8 / 2 ** bits_of(type) / np.sqrt(12))
