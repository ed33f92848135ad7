"""quant.html: what each precision of one model costs, and where in the model its error lies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from markupsafe import Markup

from pipeline import __version__
from pipeline.report.axes import (
    RIGHT,
    TOP,
    Form,
    Scale,
    add,
    canvas,
    frame,
    horizontal,
    markup,
    vertical,
)
from pipeline.report.charts import Chart
from pipeline.report.labels import Box, place
from pipeline.report.render import write_page
from pipeline.report.summary import Answer
from pipeline.report.words import finite, metric, number, share, size

Results = Mapping[str, Any]
Row = Mapping[str, Any]
Layers = Mapping[str, Mapping[str, float]]

_COLOURS = {"none": 1, "gguf": 3}
"""Of a family; all others are 2."""
_LEGEND = ((1, "16 bits"), (2, "in Transformers"), (3, "GGUF, in llama.cpp"))
_WIDE, _LABEL, _VALUE, _LINE = 760, 190, 64, 22
"""Of the heat map, px: all of it, its rows' names, their means, the height of a row."""
_FAINTEST = 8.0
"""Opacity of the smallest error that is not 0, percent."""


def write_study(folder: Path, results: Results) -> Path:
    """Write quant.html into `folder` from what a study found; equal results give equal bytes."""
    rows = [row for row in results["rows"] if row["status"] == "measured"]
    by_size = sorted(rows, key=lambda row: row["weights_bytes"])
    return write_page(
        folder / "quant.html",
        "quant.html.jinja",
        version=__version__,
        results=results,
        answers=[_answer(results)],
        rows=rows,
        refused=[row for row in results["rows"] if row["status"] != "measured"],
        charts=[chart for chart in (_quality(by_size), _divergences(by_size)) if chart],
        errors=_heat_map(rows, results["layers"]),
        kinds=_kinds(results["layers"]),
        means=[(row["label"], _means(results["layers"][row["method"]])) for row in rows
               if row["method"] in results["layers"]],
    )  # fmt: skip


def _answer(results: Results) -> Answer:
    labels = {row["method"]: row["label"] for row in results["rows"]}
    chosen = labels.get(results["best"])
    answer = Answer("Which precision?", chosen or "None can be named", "good" if chosen else "warn")
    answer.text += [results["says"], f"The rule: {results['rule']}"]
    return answer


def _colour(row: Row) -> int:
    return _COLOURS.get(row["family"], 2)


def _short(row: Row) -> str:
    """A name that fits beside a point."""
    return "16 bits" if row["family"] == "none" else str(row["method"])


def _quality(rows: Sequence[Row]) -> Chart | None:
    """The score against the bytes of the weights."""
    scored = [row for row in rows if row["score"]]
    if not scored:
        return None
    kind = metric(scored[0]["score"]["metric"])
    values = [float(row["score"]["value"]) for row in scored]
    y = vertical(min(values), max(values), pad=0.15)
    y = Scale(max(0.0, y.low), min(1.0, y.high), y.start, y.end) if kind.form is share else y
    said = [f"{kind.shown(row['score'])} ({kind.between(row['score'])})" for row in scored]
    svg = _scatter(scored, (values, said), y, (kind.label, kind.form))
    return Chart(
        f"{kind.label} by bytes of weights", svg, "point at a row for its 95% interval", _LEGEND
    )


def _divergences(rows: Sequence[Row]) -> Chart | None:
    """KL divergence against the bytes of the weights."""
    known = [row for row in rows if row["kl"] and row["kl"]["mean"] > 0]
    if not known:
        return None
    values = [float(row["kl"]["mean"]) for row in known]
    y = vertical(min(values), max(values), log=True, pad=0.12)
    said = [
        f"{row['kl']['mean']:.3g} nats a token, same likeliest token {share(row['kl']['same_top'])}"
        for row in known
    ]
    svg = _scatter(known, (values, said), y, ("nats a token", lambda value: f"{value:.0e}"))
    note = "from 16 bits; logarithmic; less is nearer"
    return Chart("KL divergence by bytes of weights", svg, note, _LEGEND[1:])


def _scatter(
    rows: Sequence[Row],
    found: tuple[Sequence[float], Sequence[str]],
    y: Scale,
    axis: tuple[str, Form],
) -> Markup:
    """A named point a row: its weights' bytes across, logarithmic, and its value up."""
    values, said = found
    sizes = [float(row["weights_bytes"]) for row in rows]
    x = horizontal(min(sizes), max(sizes), log=True, pad=0.12)
    told = zip(rows, sizes, said, strict=True)
    listed = "; ".join(f"{_short(row)} {size(bytes_)}, {text}" for row, bytes_, text in told)
    svg = canvas(f"{axis[0]} by bytes of weights: {listed}")
    frame(svg, x, y, (size, axis[1]), ("weights, logarithmic", axis[0]))
    spots = [(x(across), y(up)) for across, up in zip(sizes, values, strict=True)]
    names = [_short(row) for row in rows]
    anchors = [(a, b, name) for (a, b), name in zip(spots, names, strict=True)]
    boxes = place(anchors, [Box(a - 5, b - 5, 10, 10) for a, b in spots])
    for row, text, (a, b), box in zip(rows, said, spots, boxes, strict=True):
        group = add(svg, "g", cls=f"c{_colour(row)} spot")
        add(group, "circle", cls="dot", cx=a, cy=b, r=4.5)
        add(group, "title", f"{row['label']}: {size(row['weights_bytes'])}, {text}")
        if box:
            add(svg, "text", _short(row), cls="label", x=box.x, y=box.y + 12)
    return markup(svg)


def _heat_map(rows: Sequence[Row], layers: Layers) -> Chart | None:
    """Rows of methods, columns of matrices; the larger the error, the stronger the colour.

    On a logarithmic scale. Files in 16 bits are left out: their errors are a merge's last bits.
    """
    shown = [r for r in rows if r["method"] in layers and r["bits_per_quantized_weight"] < 16]
    names = sorted({name for row in shown for name in layers[row["method"]]}, key=_order)
    values = [e for row in shown for e in layers[row["method"]].values() if finite(e) and e > 0]
    if not values:
        return None
    depth = Scale(min(values), max(values), _FAINTEST, 100.0, log=True)
    x = Scale(0, len(names), _LABEL, _WIDE - _VALUE)
    height = TOP + _LINE * len(shown) + 44
    told = "; ".join(f"{r['label']} {number(_mean(layers[r['method']]))}" for r in shown)
    svg = canvas(f"Relative error of each matrix by method; means: {told}", height, _WIDE)
    for line, row in enumerate(shown):
        _draw_line(svg, row, (names, layers[row["method"]]), (x, depth, TOP + _LINE * line))
    _draw_layers(svg, names, x, TOP + _LINE * len(shown))
    span = f"{number(min(values))} to {number(max(values))}"
    note = f"stronger is more, from {span}; blank is kept in 16 bits; right the mean"
    return Chart("Error of each weight matrix", markup(svg), note)


def _draw_line(
    svg: Element,
    row: Row,
    found: tuple[Sequence[str], Mapping[str, float]],
    scales: tuple[Scale, Scale, float],
) -> None:
    names, errors = found
    x, depth, top = scales
    add(svg, "text", row["label"], cls="tick end strong", x=_LABEL - 8, y=top + 15)
    group = add(svg, "g", cls=f"c{_colour(row)}")
    width = round(x(1) - x(0), 1)
    for column, name in enumerate(names):
        if finite(error := errors.get(name)):
            opacity = f"{depth(error)}%" if error > 0 else 0
            spot = add(group, "g", cls="spot")
            add(spot, "rect", cls="bar", x=x(column), y=top + 2, width=max(0.5, width - 0.5),
                height=_LINE - 4, opacity=opacity)  # fmt: skip
            add(spot, "title", f"{row['label']}, {name}: {error:.3g}")
    add(svg, "text", number(_mean(errors)), cls="tick", x=_WIDE - _VALUE + 8, y=top + 15)


def _draw_layers(svg: Element, names: Sequence[str], x: Scale, bottom: float) -> None:
    """A tick where a layer begins, some of them with its number."""
    numbers = [_layer(name) for name in names]
    first = {number: column for column, number in reversed(list(enumerate(numbers)))}
    every = max(1, len(first) // 12)
    for layer, column in sorted(first.items()):
        across = x(column)
        add(svg, "line", cls="grid", x1=across, x2=across, y1=TOP, y2=bottom + 5)
        if layer >= 0 and layer % every == 0:
            add(svg, "text", str(layer), cls="tick", x=across + 2, y=bottom + 17)
    add(svg, "text", "layer", cls="name end", x=_WIDE - _VALUE - RIGHT, y=bottom + 35)


def _order(name: str) -> tuple[int, int, str]:
    """Embedding, layers in order, output; in a layer as they are used."""
    kinds = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    kind = _kind(name)
    place_ = kinds.index(kind) if kind in kinds else len(kinds)
    return (10**6 if kind == "lm_head" else _layer(name)), place_, name


def _layer(name: str) -> int:
    """Its number; -1 for what is in none."""
    return next((int(part) for part in name.split(".") if part.isdigit()), -1)


def _kind(name: str) -> str:
    return name.removesuffix(".weight").rsplit(".", 1)[-1]


def _kinds(layers: Layers) -> list[str]:
    names = {name for errors in layers.values() for name in errors}
    return list(dict.fromkeys(_kind(name) for name in sorted(names, key=_order)))


def _means(errors: Mapping[str, float]) -> dict[str, float]:
    """Kind of matrix -> mean error over the layers."""
    return {
        kind: _mean({name: error for name, error in errors.items() if _kind(name) == kind})
        for kind in dict.fromkeys(map(_kind, errors))
    }


def _mean(errors: Mapping[str, float]) -> float:
    return sum(errors.values()) / len(errors)
