"""Figures of number formats: drawn from the teaching code alone, the same on every machine."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from pipeline.report.charts import Chart
from pipeline.report.figure import Axes, Drawn, Part, plot, stacked
from pipeline.report.words import number
from pipeline.study.explain import numbers as by_hand
from pipeline.study.explain.numbers import F32

OUTERMOST = NormalDist().inv_cdf(0.9677083)
"""Standard deviations that NF4's largest level stands for."""


def normal_values(count: int) -> F32:
    """`count` normal values, the same at every call."""
    return np.random.default_rng(0).standard_normal(count).astype(np.float32)


def nf4() -> list[Chart]:
    """The levels under the normal density, and how often each is used."""
    bell = NormalDist()
    curve = [(x, bell.pdf(x)) for x in np.linspace(-3, 3, 121).tolist()]
    levels = [OUTERMOST * float(level) for level in by_hand.NF4_LEVELS]
    stems = [(level, bell.pdf(level)) for level in levels]
    form = ("standard deviations", "density")
    under = plot(
        "NF4's 16 levels under the normal density",
        [Drawn("normal density", curve, 1), Drawn("levels", stems, 2, "stems")],
        Axes(form, (number, number), low=(-3.0, 0.0), high=(3.0, None)),
    )
    return [under, _usage()]


def _usage() -> Chart:
    """Shares of weights on each level, NF4's and evenly spaced ones, in blocks of 64."""
    even = np.linspace(-1, 1, 16, dtype=np.float32)
    values = normal_values(1 << 14)
    series = []
    for name, levels, colour in (("NF4", by_hand.NF4_LEVELS, 2), ("evenly spaced", even, 3)):
        codes, _ = by_hand.quantize_blocks(values, levels)
        shares = np.bincount(codes, minlength=16) / values.size
        points = [(float(code), float(100 * share)) for code, share in enumerate(shares)]
        series.append(Drawn(name, points, colour))
    axes = Axes(
        ("code", "% of normal weights"), (number, number), low=(0.0, 0.0), high=(15.0, None)
    )
    return plot("How often each code is used", series, axes)


def int8() -> list[Chart]:
    """A row that leans to one side: the codes that absmax and zero-point make of it."""
    row = (np.abs(normal_values(1024)) * np.float32(0.4) - np.float32(0.1))[None]
    absmax, _ = by_hand.absmax_int8(row)
    zero_point, _, zeros = by_hand.zero_point_int8(row)
    error = {
        name: by_hand.relative_error(row, by_hand.METHODS[name](row).restored)
        for name in ("int8-absmax", "int8-zero-point")
    }
    return [
        _codes(f"Absmax: error {error['int8-absmax']:.2%}", absmax, 0),
        _codes(f"Zero point: error {error['int8-zero-point']:.2%}", zero_point, int(zeros[0])),
    ]


def _codes(title: str, codes: by_hand.I8, zero: int) -> Chart:
    """How many of the weights got which codes, in bins of 8, and where 0 lies."""
    counts, edges = np.histogram(codes, bins=np.arange(-128, 129, 8))
    points = [(float(edge + 4), float(n)) for edge, n in zip(edges[:-1], counts, strict=True) if n]
    zero_at = Drawn("the code of 0", [(float(zero), float(counts.max()))], 3, "dots")
    axes = Axes(
        ("code", "weights"), (number, number), low=(-132.0, 0.0), high=(132.0, 1.2 * counts.max())
    )
    return plot(title, [Drawn("weights", points, 2, "stems"), zero_at], axes)


def blocks() -> list[Chart]:
    """One outlier in a row: errors with one scale for the row, and with a scale a block."""
    row = normal_values(256) * np.float32(0.02)
    row[100] = 0.6
    whole = by_hand.quantize_blocks(row, by_hand.NF4_LEVELS, 256)
    small = by_hand.quantize_blocks(row, by_hand.NF4_LEVELS, 64)
    axes = Axes(("column", "|error|"), (number, number), low=(0.0, 0.0), high=(256.0, 0.045))
    return [
        plot(
            title, [Drawn("error of a weight", _errors(row, *found, block), colour, "stems")], axes
        )
        for title, found, block, colour in (
            ("One scale for 256 weights", whole, 256, 3),
            ("A scale for every 64", small, 64, 2),
        )
    ]


def _errors(row: F32, codes: by_hand.U8, absmax: F32, block: int) -> list[tuple[float, float]]:
    back = by_hand.from_blocks(codes, absmax, by_hand.NF4_LEVELS, block)
    return [(float(at), float(error)) for at, error in enumerate(np.abs(back - row))]


def double_quantization() -> list[Chart]:
    """Where the bits of a weight go, and what that is for 8 billion weights."""
    scale, own = 32 / by_hand.BLOCK, 32 / (by_hand.BLOCK * by_hand.GROUP)
    rows = [
        ("NF4", [("code", 4.0, 2), ("scale of 64 weights", scale, 3)]),
        (
            "NF4, double quantization",
            [
                ("code", 4.0, 2),
                ("scale of 64 weights", 8 / by_hand.BLOCK, 3),
                ("scale of 256 scales", own, 4),
            ],
        ),
    ]
    parts = [(name, [Part(*part) for part in found]) for name, found in rows]
    # a bit each of 8 billion weights is a GB
    costs = [(name, [Part(p.name, p.value, p.number) for p in each[1:]]) for name, each in parts]
    return [
        stacked("Bits a weight", parts, lambda value: f"{value:.3f}", "bits"),
        stacked("GB of scales for 8 billion weights", costs, lambda value: f"{value:.3f}", "GB"),
    ]
