"""Plots of any two quantities, bars of parts, and several of them as one picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element, fromstring

from pipeline.assets import asset
from pipeline.report.axes import (
    RIGHT,
    WIDTH,
    Form,
    Scale,
    add,
    canvas,
    frame,
    horizontal,
    markup,
    text_width,
    vertical,
)
from pipeline.report.charts import Chart
from pipeline.report.labels import Box, place

_HEAD, _FOOT, _MARGIN = 30, 22, 14
"""Room for a panel's title, for its legend, and around it, px."""
_ROW, _BAR = 40, 16


@dataclass(frozen=True)
class Drawn:
    """One set of points; `number` chooses the colour, 1 to 5."""

    name: str
    points: Sequence[tuple[float, float]]
    number: int = 2
    kind: Literal["curve", "dots", "stems"] = "curve"
    labels: Sequence[str] = ()
    """A name beside each point."""


@dataclass(frozen=True)
class Axes:
    """What a plot is drawn over. An axis from `low` to `high` where they are given."""

    names: tuple[str, str]
    forms: tuple[Form, Form]
    log: tuple[bool, bool] = (False, False)
    low: tuple[float | None, float | None] = (None, None)
    high: tuple[float | None, float | None] = (None, None)


def plot(title: str, series: Sequence[Drawn], axes: Axes, note: str = "") -> Chart:
    """Curves, dots and stems over two axes; at least one point, all of them finite."""
    x, y = _scales(series, axes)
    svg = canvas(f"{title}: {_told(series, axes)}")
    frame(svg, x, y, axes.forms, axes.names)
    spots = [(x(across), y(down)) for each in series for across, down in each.points]
    for each in series:
        _draw(svg, each, x, y)
    names = [(*spot, name) for spot, name in zip(spots, _labels(series), strict=True) if name]
    for (_, _, name), box in zip(names, place(names, _around(spots)), strict=True):
        if box:
            add(svg, "text", name, cls="label", x=box.x, y=box.y + 12)
    legend = tuple((each.number, each.name) for each in series) if len(series) > 1 else ()
    return Chart(title, markup(svg), note, legend)


def _labels(series: Sequence[Drawn]) -> list[str]:
    return [name for each in series for name in (each.labels or [""] * len(each.points))]


def _around(spots: Sequence[tuple[float, float]]) -> list[Box]:
    return [Box(across - 5, down - 5, 10, 10) for across, down in spots]


def _scales(series: Sequence[Drawn], axes: Axes) -> tuple[Scale, Scale]:
    across = [at for each in series for at, _ in each.points]
    down = [at for each in series for _, at in each.points]
    made = [
        make(min(values), max(values), log=log, pad=pad)
        for make, values, log, pad in zip(
            (horizontal, vertical), (across, down), axes.log, (0.03, 0.06), strict=True
        )
    ]
    x, y = (
        Scale(
            scale.low if low is None else low,
            scale.high if high is None else high,
            scale.start,
            scale.end,
            scale.log,
        )
        for scale, low, high in zip(made, axes.low, axes.high, strict=True)
    )
    return x, y


def _draw(svg: Element, series: Drawn, x: Scale, y: Scale) -> None:
    group = add(svg, "g", cls=f"c{series.number}")
    points = [(x(across), y(down)) for across, down in series.points]
    if series.kind == "curve":
        drawn = " ".join(f"{across},{down}" for across, down in points)
        add(group, "polyline", cls="curve", points=drawn)
    for across, down in points if series.kind == "stems" else ():
        foot = y(max(0.0, y.low)) if not y.log else y.start
        add(group, "line", cls="stem curve", x1=across, x2=across, y1=foot, y2=down)
    for across, down in points if series.kind == "dots" else ():
        add(group, "circle", cls="dot", cx=across, cy=down, r=3.5)


def _told(series: Sequence[Drawn], axes: Axes) -> str:
    """Where each series begins and ends, for a reader without eyes."""
    across, down = axes.forms
    return "; ".join(
        f"{each.name} from {down(each.points[0][1])} at {across(each.points[0][0])} "
        f"to {down(each.points[-1][1])} at {across(each.points[-1][0])}"
        for each in series
    )


@dataclass(frozen=True)
class Part:
    name: str
    value: float
    number: int


def stacked(title: str, rows: Sequence[tuple[str, Sequence[Part]]], form: Form, unit: str) -> Chart:
    """A bar for each row, as long as its parts together, with the sum at its end."""
    height = _ROW * len(rows) + 40
    sums = [sum(part.value for part in parts) for _, parts in rows]
    room = max(text_width(form(each)) for each in sums) + 10
    x = Scale(0.0, max(sums), 10, WIDTH - RIGHT - room)
    svg = canvas(f"{title}: " + "; ".join(_parts_told(*row, form) for row in rows), height)
    for number, (name, parts) in enumerate(rows):
        _draw_bar(svg, (name, parts), x, 18.0 + _ROW * number, form)
    add(svg, "text", unit, cls="name end", x=WIDTH - RIGHT, y=18 + _ROW * len(rows) + 14)
    named = {part.name: part.number for _, parts in rows for part in parts}
    return Chart(title, markup(svg), legend=tuple((n, name) for name, n in named.items()))


def _parts_told(name: str, parts: Sequence[Part], form: Form) -> str:
    told = ", ".join(f"{part.name} {form(part.value)}" for part in parts)
    return f"{name} {form(sum(part.value for part in parts))} ({told})"


def _draw_bar(
    svg: Element, row: tuple[str, Sequence[Part]], x: Scale, y: float, form: Form
) -> None:
    name, parts = row
    add(svg, "text", name, cls="strong", x=x.start, y=y)
    begun = 0.0
    for part in parts:
        bar = add(svg, "g", cls=f"c{part.number} spot")
        left, right = x(begun), x(begun + part.value)
        add(bar, "rect", cls="bar", x=left, y=y + 5, width=round(right - left, 1), height=_BAR)
        add(bar, "title", f"{part.name}: {form(part.value)}")
        begun += part.value
    add(svg, "text", form(begun), cls="label", x=x(begun) + 6, y=y + 5 + _BAR - 3)


def sheet(charts: Sequence[Chart], across: int = 2) -> str:
    """The charts as one SVG with titles and legends that needs no page around it."""
    columns = min(across, len(charts))
    sizes = [_panel_height(chart) for chart in charts]
    rows = [max(sizes[start : start + columns]) for start in range(0, len(charts), columns)]
    width, height = columns * (WIDTH + 2 * _MARGIN), sum(rows) + _MARGIN
    svg = canvas("; ".join(chart.title for chart in charts), height, width)
    svg.set("xmlns", "http://www.w3.org/2000/svg")
    svg.set("width", str(width))
    add(svg, "style", asset("modelfiles/report/figure.css").read_text(encoding="utf-8"))
    add(svg, "rect", cls="page", width=width, height=height, rx=10)
    for number, chart in enumerate(charts):
        left = (number % columns) * (WIDTH + 2 * _MARGIN) + _MARGIN
        _draw_panel(svg, chart, left, sum(rows[: number // columns]) + _MARGIN)
    return f"{markup(svg)}\n"


def _panel(chart: Chart) -> Element:
    return fromstring(str(chart.svg))


def _panel_height(chart: Chart) -> int:
    legend = _FOOT * len(_legend_lines(chart))
    return int(_panel(chart).attrib["viewBox"].split()[3]) + _HEAD + legend + _MARGIN


def _draw_panel(svg: Element, chart: Chart, left: int, top: int) -> None:
    add(svg, "text", chart.title, cls="heading", x=left, y=top + 14)
    inner = _panel(chart)
    height = int(inner.attrib["viewBox"].split()[3])
    inner.attrib.update(x=str(left), y=str(top + _HEAD), width=str(WIDTH), height=str(height))
    svg.append(inner)
    for number, line in enumerate(_legend_lines(chart)):
        at = float(left)
        for colour, name in line:
            y = top + _HEAD + height + _FOOT * number + 8
            spot = add(svg, "g", cls=f"c{colour}")
            add(spot, "circle", cls="dot", cx=at + 5, cy=y - 4, r=5)
            add(svg, "text", name, cls="tick", x=at + 15, y=y)
            at += text_width(name) + 32


def _legend_lines(chart: Chart) -> list[list[tuple[int, str]]]:
    """The legend in lines that fit a panel's width."""
    lines: list[list[tuple[int, str]]] = []
    room = 0.0
    for each in chart.legend:
        width = text_width(each[1]) + 32
        if not lines or room < width:
            lines.append([])
            room = WIDTH
        lines[-1].append(each)
        room -= width
    return lines
