"""Figures of models: LoRA's shapes and scale, a trained change, memory, GGUF's types."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

from pipeline.recipe.training import Lora
from pipeline.report.axes import HEIGHT, WIDTH, add, canvas, markup
from pipeline.report.charts import Chart
from pipeline.report.explain import bits_chart
from pipeline.report.figure import Axes, Drawn, Part, plot, stacked
from pipeline.report.words import number
from pipeline.study.plan.catalogue import catalogue
from pipeline.study.plan.memory import Method, Setting, memory_of

HIDDEN, RANK = 2048, 16
"""A projection of Llama 3.2 1B, and the rank that the figure draws."""


def lora() -> list[Chart]:
    """W, B and A as boxes to scale, but for the rank, which would be a hair's breadth."""
    change = 2 * HIDDEN * RANK
    svg = canvas(
        f"W of {HIDDEN} x {HIDDEN}, plus B of {HIDDEN} x {RANK} times A of {RANK} x {HIDDEN}"
    )
    boxes = (
        ("W", f"{HIDDEN:,} × {HIDDEN:,}", (20, 40, 130, 130), 1),
        ("B", f"{HIDDEN:,} × {RANK}", (205, 40, 12, 130), 2),
        ("A", f"{RANK} × {HIDDEN:,}", (250, 40, 100, 12), 3),
    )
    for name, size, (x, y, width, height), colour in boxes:
        group = add(svg, "g", cls=f"c{colour}")
        add(group, "rect", cls="box", x=x, y=y, width=width, height=height)
        add(svg, "text", name, cls="label middle", x=x + width / 2, y=y - 8)
        add(svg, "text", size, cls="tick middle", x=x + width / 2, y=y + height + 18)
    add(svg, "text", "+", cls="label middle", x=174, y=109)
    add(svg, "text", "×", cls="label middle", x=234, y=50)
    said = f"{change:,} numbers are learned beside {HIDDEN**2:,}: {change / HIDDEN**2:.1%}"
    add(svg, "text", said, cls="tick middle", x=WIDTH / 2, y=HEIGHT - 6)
    return [Chart("W stays, B A is learned", markup(svg))]


def lora_scaling() -> list[Chart]:
    """The factor before B A, by rank."""
    ranks = [4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
    plain = [
        Drawn(f"alpha {alpha}", [(r, alpha / r) for r in ranks], colour)
        for alpha, colour in ((16, 2), (32, 3), (64, 4))
    ]
    kept = [
        Drawn("alpha = 2 r", [(r, 2.0) for r in ranks], 1),
        Drawn("alpha 16", [(r, 16 / r) for r in ranks], 2),
        Drawn("alpha 16, rsLoRA: alpha / √r", [(r, 16 / sqrt(r)) for r in ranks], 5),
    ]
    axes = Axes(
        ("rank r, logarithmic", "factor"),
        (number, number),
        (True, True),
        (None, 0.05),
        (None, 20.0),
    )
    return [plot("alpha / r at a fixed alpha", plain, axes), plot("What keeps it", kept, axes)]


def lora_spectrum(measured: Mapping[str, Any]) -> list[Chart]:
    """Singular values of a trained change beside those of the weights that it changes."""
    found = measured["spectrum"]
    series = [
        Drawn("W", list(enumerate(found["weights"], 1)), 1),
        Drawn("its change, rank 32", list(enumerate(found["change"], 1)), 2),
    ]
    axes = Axes(("number of the singular value", ""), (number, number), (False, True), (0.0, 1e-4))
    shown = plot("Singular values of the demo's first q_proj", series, axes)
    shares = [
        Drawn(name, list(enumerate([0.0, *values])), colour)
        for (name, values), colour in zip(found["shares"].items(), (2, 3, 4), strict=True)
    ]
    form = ("directions", "% of the change, squared")
    rest = Axes(form, (number, number), low=(0.0, 0.0), high=(32.0, 104.0))
    return [shown, plot("How few directions hold the change", shares, rest)]


def memory_8b() -> list[Chart]:
    """A step of Llama 3.1 8B by parts, as `pipe plan` reckons it."""
    known = catalogue().find("Llama-3.1-8B")
    if known is None:
        raise SystemExit("The catalogue has no Llama-3.1-8B.")
    names: tuple[tuple[str, Method], ...] = (
        ("full", "full"),
        ("LoRA, r 16", "lora"),
        ("QLoRA, r 16", "qlora"),
    )
    rows = []
    for name, method in names:
        found = memory_of(known.shape, _setting(method))
        rest = found.step - found.weights - found.adapter - found.gradients - found.optimizer
        sizes = (found.weights, found.adapter + found.gradients, found.optimizer, rest)
        labels = ("weights", "adapter and gradients", "optimizer", "activations and the rest")
        parts = [
            Part(label, size / 1e9, at)
            for at, (label, size) in enumerate(zip(labels, sizes, strict=True), 2)
        ]
        rows.append((name, parts))
    title = "Llama 3.1 8B, 2 rows of 2,048 tokens, 8-bit AdamW"
    return [stacked(title, rows, lambda size: f"{size:.1f} GB", "reckoned, not measured")]


def _setting(method: Method) -> Setting:
    return Setting(method, "cuda", "bf16", 2, 2048, True, "adamw_8bit", Lora(r=16, alpha=32))


def gguf_types(measured: Mapping[str, Any]) -> list[Chart]:
    """Bits a weight against the error of a whole matrix."""
    found = bits_chart(measured["matrix"])
    return [
        Chart("Error of a matrix, relative to its weights", found.svg, found.note, found.legend)
    ]
