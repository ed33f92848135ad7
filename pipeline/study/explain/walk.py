"""What each method does to one row, as data: scales, codes, what comes back, and the error."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.study.explain import numbers as by_hand
from pipeline.study.explain import superblock
from pipeline.study.explain.numbers import F32
from pipeline.study.explain.subject import Subject

SCHEMA = 1
IDEAS = {
    "GPTQ": "Rounds a matrix column by column, and after each changes the columns still to come so "
    "that they make up for its error on real inputs. Which change does so best follows from the "
    "inputs' second moments, the inverse Hessian (https://arxiv.org/abs/2210.17323).",
    "AWQ": "Few input channels matter, those whose values are large on real text. Their weights "
    "are multiplied before rounding and their inputs divided as much, so they lose less "
    "(https://arxiv.org/abs/2306.00978).",
}
"""Methods that round the same way but need a text to choose by: no row of weights shows them."""


@dataclass(frozen=True)
class Walk:
    """One method on the row; arrays are [columns]."""

    method: str
    label: str
    rule: str
    bits: float
    """Bits a weight, its share of the scales included."""
    scales: Sequence[tuple[str, float]]
    """What turns the row's first weight into a code and back, in the order of use."""
    scaled: F32
    """The weights before rounding, in the unit of the codes or levels."""
    codes: npt.NDArray[Any]
    restored: F32
    levels: F32 | None = None
    """What each code stands for before scaling; None where that is the code itself."""


def explained(subject: Subject, shown: int) -> dict[str, Any]:
    """The row through every method: the first `shown` weights one by one, errors of them all."""
    row, (rows, columns) = subject.weights, subject.shape
    walks = [_absmax(row), _zero_point(row), _nf4(subject), _nf4_double(subject), _fp4(subject)]
    return {
        "schema": SCHEMA,
        "model": subject.model,
        "tensor": subject.tensor,
        "shape": [rows, columns],
        "dtype": subject.stored.dtype,
        "row": subject.row,
        "shown": min(shown, columns),
        "largest": float(np.abs(row).max()),
        "rms": by_hand.rms_error(row, np.zeros_like(row)),
        "weights": _list(row[:shown]),
        "methods": [_data(walk, row, shown) for walk in [*walks, *_super_blocks(row)]],
        "gguf": [_type(type, row) for type in superblock.TYPES],
        "ideas": IDEAS,
    }


def _data(walk: Walk, row: F32, shown: int) -> dict[str, Any]:
    return {
        "method": walk.method,
        "label": walk.label,
        "rule": walk.rule,
        "scales": [{"name": name, "value": value} for name, value in walk.scales],
        "scaled": _list(walk.scaled[:shown]),
        "codes": walk.codes[:shown].tolist(),
        "levels": None if walk.levels is None else _list(walk.levels[walk.codes[:shown]]),
        "restored": _list(walk.restored[:shown]),
        "errors": _list((walk.restored - row)[:shown]),
        "used": _used(walk),
        "bits": walk.bits,
        **_errors(row, walk.restored),
    }


def _used(walk: Walk) -> list[dict[str, float]] | None:
    """How many weights of the row got each of 16 levels, from the lowest; None without a table."""
    if walk.levels is None:
        return None
    counts = np.bincount(walk.codes, minlength=len(walk.levels))
    order = np.argsort(walk.levels, kind="stable")
    return [
        {"code": int(code), "level": float(walk.levels[code]), "weights": int(counts[code])}
        for code in order
    ]


def _errors(row: F32, restored: F32) -> dict[str, float]:
    return {
        "rms_error": by_hand.rms_error(row, restored),
        "relative_error": by_hand.relative_error(row, restored),
        "max_error": float(np.abs(row - restored).max()),
    }


def _absmax(row: F32) -> Walk:
    codes, scales = by_hand.absmax_int8(row[None])
    return Walk(
        "int8-absmax",
        "int8, absmax",
        "scale = max|w| / 127; code = round(w / scale); back = code * scale",
        by_hand.rounded_absmax_int8(row[None]).bits,
        [("scale", float(scales[0]))],
        row / scales[0],
        codes[0],
        by_hand.from_absmax_int8(codes, scales)[0],
    )


def _zero_point(row: F32) -> Walk:
    codes, scales, zeros = by_hand.zero_point_int8(row[None])
    return Walk(
        "int8-zero-point",
        "int8, zero point",
        "scale = (max - min) / 255; code = round(w / scale) + zero; back = (code - zero) * scale",
        by_hand.rounded_zero_point_int8(row[None]).bits,
        [("scale", float(scales[0])), ("zero", float(zeros[0]))],
        np.asarray(row / scales[0] + zeros[0], np.float32),
        codes[0],
        by_hand.from_zero_point_int8(codes, scales, zeros)[0],
    )


def _nf4(subject: Subject) -> Walk:
    rule = "absmax = max|w| of 64 weights; code = the level nearest to w / absmax; "
    levels = by_hand.NF4_LEVELS
    return _blocks(subject, ("nf4", "NF4", f"{rule}back = level * absmax"), levels)


def _fp4(subject: Subject) -> Walk:
    rule = "as NF4, with the levels of a number of 1 sign, 2 exponent and 1 fraction bits"
    return _blocks(subject, ("fp4", "FP4", rule), by_hand.FP4_LEVELS)


def _blocks(subject: Subject, named: tuple[str, str, str], levels: F32) -> Walk:
    codes, scales = subject.blockwise(levels)
    each = subject.of_block(scales)
    return Walk(
        *named,
        by_hand.bits_4bit(double=False),
        [("absmax", float(scales[0]))],
        np.asarray(subject.weights / np.maximum(each, by_hand.TINY), np.float32),
        codes,
        levels[codes] * each,
        levels,
    )


def _nf4_double(subject: Subject) -> Walk:
    """NF4 with the scales of the whole matrix in 8 bits, of which the row's own are looked at."""
    plain = _nf4(subject)
    double = by_hand.double_quantize(subject.all_scales)
    first = subject.first_block
    scales = double.restored()[first : first + len(subject.blockwise(by_hand.NF4_LEVELS)[1])]
    steps = [
        ("absmax", plain.scales[0][1]),
        ("its 8-bit code", float(double.codes[first])),
        ("level of 256", float(by_hand.dynamic_levels()[double.codes[first]])),
        ("absmax of 256 scales", float(double.absmax[first // by_hand.GROUP])),
        ("mean", float(double.offset)),
        ("absmax, back", float(scales[0])),
    ]
    return Walk(
        "nf4-double",
        "NF4, double quantization",
        "as NF4; absmax, back = level of 256 * absmax of 256 scales + mean of all scales",
        by_hand.bits_4bit(double=True),
        steps,
        plain.scaled,
        plain.codes,
        by_hand.NF4_LEVELS[plain.codes] * subject.of_block(scales),
        by_hand.NF4_LEVELS,
    )


def _super_blocks(row: F32) -> list[Walk]:
    """Q4_K, where the row fills super-blocks; `gguf` says why where it does not."""
    if len(row) % superblock.SUPER:
        return []
    found = superblock.taken_apart(row)
    walk = Walk(
        "q4_k",
        f"{superblock.SHOWN} of GGUF",
        "code = (w + minimum * offset) / (scale * step); "
        "back = scale * step * code - minimum * offset",
        superblock.bits(superblock.SHOWN),
        [
            ("scale of 256", float(found.scales[0])),
            ("step of 32", float(found.steps[0, 0])),
            ("minimum of 256", float(found.minimums[0])),
            ("offset of 32", float(found.offsets[0, 0])),
        ],
        np.asarray((row - found.lowest) / np.maximum(found.spacing, by_hand.TINY), np.float32),
        found.codes,
        found.restored(),
    )
    return [walk]


def _type(type: str, row: F32) -> dict[str, Any]:
    """A GGUF type's bits and error on the row, or why it cannot hold it."""
    entry: dict[str, Any] = {"type": type, "bits": superblock.bits(type), "reason": None}
    try:
        return entry | _errors(row, superblock.in_type(type, row))
    except ValueError as error:
        return entry | {"reason": str(error)}


def _list(values: F32) -> list[float]:
    return [float(value) for value in values]
