"""The charts of the page: curves, points with whiskers, bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from markupsafe import Markup

from pipeline.report.axes import (
    HEIGHT,
    LEFT,
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
from pipeline.report.histogram import Bins
from pipeline.report.labels import Box, place
from pipeline.report.words import Value, finite, number, share, tokens

MOST_POINTS = 240
"""A curve of more is drawn as means of equally many points."""
_NAMED_BINS = 8
_STEEP = 20.0
"""From this ratio of the largest to the smallest value on, a curve needs a logarithmic axis."""


@dataclass(frozen=True)
class Series:
    name: str
    points: Sequence[tuple[float, float]]
    number: int = 0
    """Chooses the colour."""
    dots: bool = False
    """Points alone, for values that were taken seldom."""


@dataclass(frozen=True)
class Chart:
    """A picture with what is to be said of it."""

    title: str
    svg: Markup
    note: str = ""
    legend: tuple[tuple[int, str], ...] = ()


def curves(title: str, series: Sequence[Series], *, log: bool | None = None) -> Chart | None:
    """Values by step; what is no finite number is left out.

    `log` None draws a steep curve, from 20 to 1 on, on a logarithmic axis.
    """
    series = [Series(s.name, _thinned(_drawable(s.points)), s.number, s.dots) for s in series]
    series = [each for each in series if each.points]
    if not series:
        return None
    values = [value for each in series for _, value in each.points]
    steps = [step for each in series for step, _ in each.points]
    steep = min(values) > 0 and max(values) / min(values) >= _STEEP
    log = steep if log is None else log and min(values) > 0
    x = horizontal(min(steps), max(steps))
    x = Scale(min(steps), max(steps), x.start, x.end) if max(steps) > min(steps) else x
    y = vertical(min(values) if log else min(0.0, *values), max(values), log=log, pad=0.04)
    y = y if log or min(values) < 0 else Scale(0.0, y.high, y.start, y.end)
    svg = canvas(f"{title} by step: {_told(series)}")
    frame(svg, x, y, (number, number), ("step", ""))
    for each in series:
        _draw_curve(svg, each, x, y)
    legend = tuple((each.number, each.name) for each in series) if len(series) > 1 else ()
    return Chart(title, markup(svg), "logarithmic" if log else "", legend)


def _told(series: Sequence[Series]) -> str:
    """What a reader without eyes gets of a curve: where it begins and ends."""
    ends = (
        f"{s.name} {number(s.points[0][1])} at {s.points[0][0]:g}, "
        f"{number(s.points[-1][1])} at {s.points[-1][0]:g}"
        for s in series
    )
    return "; ".join(ends)


def _drawable(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(step, value) for step, value in points if finite(value)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    width = -(-len(points) // MOST_POINTS)
    groups = [points[start : start + width] for start in range(0, len(points), max(1, width))]
    return [
        (group[-1][0], sum(value for _, value in group) / len(group)) for group in groups if group
    ]


def _draw_curve(svg: Element, series: Series, x: Scale, y: Scale) -> None:
    group = add(svg, "g", cls=f"c{series.number}")
    points = [(x(step), y(value)) for step, value in series.points]
    if not series.dots and len(points) > 1:
        drawn = " ".join(f"{across},{down}" for across, down in points)
        add(group, "polyline", cls="curve", points=drawn)
    for (step, value), (across, down) in zip(series.points, points, strict=True):
        spot = add(group, "g", cls="spot")
        add(spot, "circle", cls="reach", cx=across, cy=down, r=6)
        shown = series.dots or len(points) == 1
        add(spot, "circle", cls="dot" if shown else "dot faint", cx=across, cy=down, r=3.5)
        add(spot, "title", f"{series.name}, step {step:g}: {number(value)}")


@dataclass(frozen=True)
class Point:
    name: str
    x: float
    value: Value
    number: int = 0


def points_chart(
    title: str, points: Sequence[Point], names: tuple[str, str], forms: tuple[Form, Form]
) -> Chart | None:
    """One point with its 95% interval for each file, its name beside it."""
    points = [p for p in points if finite(p.value.get("value")) and finite(p.x)]
    if not points:
        return None
    spans = [_span(point.value) for point in points]
    low, high = min(span[0] for span in spans), max(span[2] for span in spans)
    x = horizontal(min(p.x for p in points), max(p.x for p in points), pad=0.15)
    x = Scale(max(0.0, x.low), x.high, x.start, x.end)
    y = vertical(low, high, pad=0.12)
    y = Scale(max(0.0, y.low), min(1.0, y.high), y.start, y.end) if forms[1] is share else y
    told = "; ".join(f"{p.name} {forms[0](p.x)}, {forms[1](_span(p.value)[1])}" for p in points)
    svg = canvas(f"{title}: {told}")
    frame(svg, x, y, forms, names)
    _draw_points(svg, points, (x, y), forms)
    return Chart(title, markup(svg))


def _span(value: Value) -> tuple[float, float, float]:
    """low, value, high; the value itself for an end that is not known."""
    middle = value["value"]
    assert middle is not None
    low, high = (value.get(end) for end in ("low", "high"))
    return low if finite(low) else middle, middle, high if finite(high) else middle


def _draw_points(
    svg: Element, points: Sequence[Point], scales: tuple[Scale, Scale], forms: tuple[Form, Form]
) -> None:
    x, y = scales
    spots = [(x(p.x), *(y(each) for each in _span(p.value))) for p in points]
    taken = [Box(at - 5, high - 1, 10, low - high + 2) for at, low, _, high in spots]
    taken += [Box(at - 5, middle - 5, 10, 10) for at, _, middle, _ in spots]
    anchors = [(at, spot, p.name) for p, (at, _, spot, _) in zip(points, spots, strict=True)]
    boxes = place(anchors, taken)
    for point, (at, low, middle, high), box in zip(points, spots, boxes, strict=True):
        group = add(svg, "g", cls=f"c{point.number} spot")
        add(group, "line", cls="whisker", x1=at, x2=at, y1=low, y2=high)
        for end in (low, high):
            add(group, "line", cls="whisker", x1=at - 4, x2=at + 4, y1=end, y2=end)
        add(group, "circle", cls="dot", cx=at, cy=middle, r=4.5)
        bottom, value, top = (forms[1](each) for each in _span(point.value))
        add(group, "title", f"{point.name}: {forms[0](point.x)}, {value} ({bottom} to {top})")
        if box:
            add(svg, "text", point.name, cls="label", x=box.x, y=box.y + 12)


def divergence_chart(precision: Mapping[str, Mapping[str, Any]]) -> Chart | None:
    """KL divergence of each type, beside that of the base quantized the same way; log scale."""
    rows = {kind: (_kl(each, "kl"), _kl(each, "baseline_kl")) for kind, each in precision.items()}
    found = [value for row in rows.values() for value in row if finite(value) and value > 0]
    if not found:
        return None
    height = 28 * len(rows) + 52
    left = max(LEFT, max(text_width(kind, bold=True) for kind in rows) + 12)
    x = horizontal(min(found), max(found), log=True, pad=0.12)
    x = Scale(x.low, x.high, left, WIDTH - RIGHT, log=True)
    svg = canvas("KL divergence of each type: " + _kl_told(rows), height)
    bottom = height - 42
    for tick in x.ticks():
        add(svg, "line", cls="grid", x1=x(tick), x2=x(tick), y1=6, y2=bottom)
        add(svg, "text", f"{tick:g}", cls="tick middle", x=min(x(tick), 330), y=bottom + 17)
    for place_, (kind, row) in enumerate(rows.items()):
        _draw_divergence(svg, kind, row, (x, 20.0 + 28 * place_))
    add(svg, "text", "nats a token", cls="name end", x=WIDTH - RIGHT, y=bottom + 35)
    legend = ((2, "tuned model"), (1, "base quantized the same way"))
    return Chart("KL divergence", markup(svg), "logarithmic; less is nearer to 16 bits", legend)


def _kl(found: Mapping[str, Any], key: str) -> float | None:
    """None for what is no finite number; rounding can make a divergence of nothing negative."""
    value = found.get(key)
    return max(0.0, value) if finite(value) else None


def _kl_told(rows: Mapping[str, tuple[float | None, float | None]]) -> str:
    return "; ".join(
        f"{kind} {kl if kl is None else number(kl)}, base {base if base is None else number(base)}"
        for kind, (kl, base) in rows.items()
    )


def _draw_divergence(
    svg: Element, kind: str, row: tuple[float | None, float | None], at: tuple[Scale, float]
) -> None:
    x, y = at
    add(svg, "text", kind, cls="tick end strong", x=x.start - 8, y=y + 4)
    ends = [x(value) if value else x.start for value in row]
    add(svg, "line", cls="axis", x1=min(ends), x2=max(ends), y1=y, y2=y)
    for colour, name, value, across in zip((2, 1), ("tuned", "base"), row, ends, strict=True):
        if value is None:
            continue
        spot = add(svg, "g", cls=f"c{colour} spot")
        add(spot, "circle", cls="dot", cx=across, cy=y, r=5)
        add(spot, "title", f"{kind}, {name}: {value:.3g} nats a token")


def interval_bar(
    value: Value | None, low: float, high: float, tone: int = 2, width: int = 160
) -> Markup:
    """A dot with its 95% interval on a track from `low` to `high`; empty without a value."""
    if not value or not finite(value.get("value")):
        return Markup("")
    start, middle, end = _span(value)
    x = Scale(low, high, 6, width - 6)
    svg = canvas(f"{number(middle)}, from {number(start)} to {number(end)}", 16, width)
    svg.set("class", f"interval c{tone}")
    add(svg, "line", cls="track", x1=6, x2=width - 6, y1=8, y2=8)
    add(svg, "line", cls="range", x1=x(start), x2=max(x(end), x(start) + 0.1), y1=8, y2=8)
    add(svg, "circle", cls="dot", cx=x(middle), cy=8, r=4)
    return markup(svg)


def lengths_chart(bins: Bins, limit: int | None) -> Chart | None:
    """How many rows have how many tokens, and the longest that trains."""
    edges, rows = bins.edges, bins.rows
    used = [place_ for place_, count in enumerate(rows) if count]
    if not used:
        return None
    first, last = max(0, used[0] - 1), min(len(rows) - 1, used[-1] + 1)
    x = Scale(first, last + 1, LEFT, WIDTH - RIGHT)
    y = Scale(0, 1.06 * max(rows), *(vertical(0, 1).start, vertical(0, 1).end))
    svg = canvas("Rows by their length in tokens: " + _bins_told(edges, rows, used))
    frame(svg, x, y, (lambda _: "", number), ("tokens of a row", "rows"))
    every = -(-(last - first + 1) // _NAMED_BINS)
    for bin_ in range(first, last + 1):
        top = y(rows[bin_])
        bar = add(svg, "g", cls="c2 spot")
        width = x(bin_ + 1) - x(bin_) - 2
        add(bar, "rect", cls="bar", x=x(bin_) + 1, y=top, width=width, height=y.start - top, rx=2)
        add(bar, "title", f"{_bin(edges, bin_)}: {rows[bin_]:,} rows")
        if (bin_ - first) % every == 0:
            add(svg, "text", tokens(edges[bin_]), cls="tick middle", x=x(bin_), y=y.start + 17)
    drawn = limit is not None and limit in edges and first < edges.index(limit) <= last + 1
    if limit is not None and drawn:
        at = x(edges.index(limit))
        add(svg, "line", cls="limit", x1=at, x2=at, y1=y.end, y2=y.start)
        add(svg, "text", f"limit {tokens(limit)}", cls="tick end", x=at - 5, y=y.end + 10)
    note = bins.of if drawn or limit is None else f"{bins.of}; the limit is {tokens(limit)}"
    return Chart("Length of the rows", markup(svg), note)


def _bin(edges: Sequence[int], bin_: int) -> str:
    if bin_ + 1 == len(edges):
        return f"{tokens(edges[bin_])} tokens or more"
    return f"{tokens(edges[bin_])} to {tokens(edges[bin_ + 1])} tokens"


def _bins_told(edges: Sequence[int], rows: Sequence[int], used: Sequence[int]) -> str:
    return "; ".join(f"{_bin(edges, each)} {rows[each]:,}" for each in used)


def shares_bar(parts: Sequence[tuple[str, int, str]]) -> Markup:
    """One bar of (name, count, class), each as wide as its share."""
    total = sum(count for _, count, _ in parts) or 1
    svg = canvas("; ".join(f"{name} {count:,}" for name, count, _ in parts), 10, 1000)
    svg.set("class", "shares")
    svg.set("preserveAspectRatio", "none")
    begun = 0.0
    for name, count, kind in parts:
        width = 1000 * count / total
        part = add(svg, "g", cls=kind)
        add(part, "rect", x=round(begun, 1), y=0, width=round(width, 1), height=HEIGHT)
        add(part, "title", f"{name}: {count:,} ({count / total:.1%})")
        begun += width
    return markup(svg)
