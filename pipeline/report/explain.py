"""A row quantized by hand as a page or a picture: weights, levels, errors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.report.charts import Chart
from pipeline.report.figure import Axes, Drawn, plot, sheet
from pipeline.report.render import write_page
from pipeline.report.words import number, share
from pipeline.run.files import explained_writes, write_text

_CURVES = {"int8-absmax": 1, "nf4": 2, "q4_k": 3}
"""Methods whose errors are drawn weight by weight, and their colours."""
_SMALLEST = 1e-12
"""Stands for an error of nothing where the axis is logarithmic."""


def write_explained(path: Path, found: Mapping[str, Any]) -> Path:
    """Draw what pipe quant explain found: an .svg as a picture, anything else as a page.

    Equal data gives equal bytes. Raises PipeError where the file cannot be written.
    """
    charts = explained_charts(found)
    with explained_writes(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".svg":
            write_text(path, sheet(charts))
            return path
        return write_page(path, "explain.html.jinja", found=found, charts=charts)


def explained_charts(found: Mapping[str, Any]) -> list[Chart]:
    """The weights and their NF4, the levels in use, the errors, and what each bit buys."""
    methods = {each["method"]: each for each in found["methods"]}
    return [_back(found, methods["nf4"]), _used(methods), _errors(methods), bits_chart(found)]


def _back(found: Mapping[str, Any], nf4: Mapping[str, Any]) -> Chart:
    series = [
        Drawn("weight", list(enumerate(found["weights"])), 1),
        Drawn("back from NF4", list(enumerate(nf4["restored"])), 2, "dots"),
    ]
    return plot("The weights, and what comes back", series, Axes(("column", ""), (number, number)))


def _used(methods: Mapping[str, Mapping[str, Any]]) -> Chart:
    series = [
        Drawn(methods[name]["label"], _levels(methods[name], shift), colour, "stems")
        for name, colour, shift in (("nf4", 2, -0.006), ("fp4", 3, 0.006))
    ]
    axes = Axes(("level", "weights"), (number, number), low=(None, 0.0))
    return plot("Weights of the row on each level", series, axes)


def _levels(method: Mapping[str, Any], shift: float) -> list[tuple[float, float]]:
    return [(each["level"] + shift, each["weights"]) for each in method["used"]]


def _errors(methods: Mapping[str, Mapping[str, Any]]) -> Chart:
    series = [
        Drawn(each["label"], [(at, abs(e)) for at, e in enumerate(each["errors"])], _CURVES[name])
        for name, each in methods.items()
        if name in _CURVES
    ]
    axes = Axes(("column", ""), (number, number), low=(None, 0.0))
    return plot("Error of each weight", series, axes)


def bits_chart(found: Mapping[str, Any]) -> Chart:
    """Bits a weight against the relative error, of the methods and of GGUF's types."""
    types = [each for each in found["gguf"] if each["reason"] is None]
    ours = [each for each in found["methods"] if each["method"] not in ("q4_k", "int8-zero-point")]
    series = [
        Drawn("int8, NF4, FP4", *_points(ours, 2, [_brief(each["label"]) for each in ours])),
        Drawn("types of GGUF", *_points(types, 3, [each["type"] for each in types])),
    ]
    axes = Axes(("bits a weight, scales included", ""), (number, share), log=(False, True))
    shown = [each for each in series if each.points]
    return plot("Error of the whole row, of its RMS", shown, axes, "logarithmic")


def _points(entries: list[Any], colour: int, names: list[str]) -> tuple[Any, int, Any, list[str]]:
    points = [(each["bits"], max(each["relative_error"], _SMALLEST)) for each in entries]
    return points, colour, "dots", names


def _brief(label: str) -> str:
    return label.replace(", double quantization", " double").split(",")[0]
