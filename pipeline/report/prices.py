"""Numbers that were said against the true ones, a point each, coloured by how far off it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree.ElementTree import Element

from markupsafe import Markup

from pipeline.chat import ChatFormat, chat_format, parse_reply
from pipeline.recipe.metrics import KNOWN
from pipeline.report.axes import add, canvas, frame, horizontal, markup, vertical
from pipeline.report.gather import answers_of, rows_of
from pipeline.report.view import RunView
from pipeline.report.words import metric, number, plural

Kind = Literal["hit", "near", "miss"]
KINDS: tuple[Kind, ...] = ("hit", "near", "miss")
FIGURES = tuple(each.name for each in KNOWN.values() if each.on_request)
MOST_POINTS = 400
"""Drawn of each engine, the first of them: more would hide one another."""
_CALLED: Mapping[Kind, str] = {"hit": "hits", "near": "near", "miss": "missed"}
_NEAR = 2.0
"""Off by less than this many times what a hit may be off is near."""


@dataclass(frozen=True)
class Point:
    id: str
    true: float
    said: float
    kind: Kind


@dataclass(frozen=True)
class Scatter:
    """One engine's numbers to one task, with its figures by their names."""

    engine: str
    svg: Markup
    figures: tuple[tuple[str, str], ...]
    legend: tuple[tuple[Markup, str], ...]
    """Each kind's mark, and how many there are."""
    note: str


def scatters(view: RunView) -> dict[str, list[Scatter]]:
    """Task -> pictures of the base and the tuned model, where the error of numbers was measured."""
    found: dict[str, list[Scatter]] = {}
    for name, task in view.tasks.items():
        engines = [each for each in ("base", view.tuned) if each and each in task["engines"]]
        measured = [each for each in engines if "mae" in task["engines"][each]]
        if measured:
            points = _points(view, name, task)
            drawn = [_scatter(view, each, task, points.get(each, [])) for each in measured]
            found[name] = [each for each in drawn if each is not None]
    return {name: drawn for name, drawn in found.items() if drawn}


def _points(view: RunView, name: str, task: Mapping[str, Any]) -> dict[str, list[Point]]:
    """Engine -> the first answer to each question whose true number is known."""
    from pipeline.evaluate.number_metrics import number_in

    format = chat_format(view.recipe.get("chat", {}).get("format", "llama3.2-reasoning"))
    rows = {row["id"]: row.get("reference") or row.get("answer") for row in rows_of(view)}
    relative = not any("hit_rate" in scores for scores in task["engines"].values())
    found: dict[str, list[Point]] = {}
    for answer in answers_of(view, name):
        wanted = rows.get(answer["id"]) if name == "test" else answer.get("reference")
        true = None if wanted is None else number_in(str(wanted))
        if true is not None and answer.get("sample", 0) == 0:
            point = _point(answer, true, format, relative=relative)
            found.setdefault(answer["engine"], []).append(point)
    return found


def _point(answer: Mapping[str, Any], true: float, format: ChatFormat, *, relative: bool) -> Point:
    from pipeline.evaluate.number_metrics import said_number

    said = said_number(parse_reply(answer["text"], format).answer)
    return Point(str(answer["id"]), true, said, kind_of(said, true, relative=relative))


def kind_of(said: float, true: float, *, relative: bool) -> Kind:
    """Hit as the hit rate counts it, by its share alone where `relative`; near up to twice as far
    off."""
    from pipeline.evaluate.number_metrics import is_hit, is_near

    hit = is_near if relative else is_hit
    closer = true + (said - true) / _NEAR
    if hit(said, true):
        return "hit"
    return "near" if hit(closer, true) else "miss"


def _scatter(
    view: RunView, engine: str, task: Mapping[str, Any], points: Sequence[Point]
) -> Scatter | None:
    if not points:
        return None
    scores = task["engines"][engine]
    figures = tuple((metric(n).label, metric(n).shown(scores[n])) for n in FIGURES if n in scores)
    counts = {kind: sum(each.kind == kind for each in points) for kind in KINDS}
    drawn = points[:MOST_POINTS]
    top = max(1.0, *(each.true for each in drawn))
    above = sum(each.said > _ceiling(top) for each in drawn)
    notes = [f"the first {len(drawn)} of {len(points)}"] if len(drawn) < len(points) else []
    notes += [f"{plural(above, 'answer')} above the picture, drawn at its edge"] if above else []
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    svg = _drawn(f"{view.shown(engine)}: said against true, {told}", drawn, top)
    legend = tuple((_key(kind), f"{counts[kind]} {_CALLED[kind]}") for kind in KINDS)
    return Scatter(view.shown(engine), svg, figures, legend, "; ".join(notes))


def _ceiling(top: float) -> float:
    """The largest number that is drawn where it is: a few wild ones would flatten the others."""
    return 1.5 * top


def _drawn(label: str, points: Sequence[Point], top: float) -> Markup:
    """True numbers across, those said upwards, and the line on which both are one."""
    highest = min(_ceiling(top), max([top, *(each.said for each in points)]))
    svg = canvas(label)
    x, y = horizontal(0.0, top), vertical(0.0, highest)
    frame(svg, x, y, (number, number), ("true", "said"))
    add(svg, "line", cls="axis", x1=x(0), y1=y(0), x2=x(top), y2=y(top))
    for point in points:
        group = add(svg, "g", cls=f"spot {point.kind}")
        _mark(group, point.kind, x(point.true), y(min(point.said, highest)))
        said = f"{number(point.said)} said, {number(point.true)} true"
        add(group, "title", f"{point.id}: {said}, {point.kind}")
    return markup(svg)


def _mark(group: Element, kind: Kind, across: float, down: float) -> None:
    """A circle, a diamond or a cross: who sees no colours sees these."""
    if kind == "hit":
        add(group, "circle", cls="dot", cx=across, cy=down, r=2.6)
    elif kind == "near":
        corners = ((0, -3.6), (3.6, 0), (0, 3.6), (-3.6, 0))
        places = " ".join(f"{across + dx:.1f},{down + dy:.1f}" for dx, dy in corners)
        add(group, "polygon", cls="dot", points=places)
    else:
        for dx in (-3, 3):
            left, right = across - dx, across + dx
            add(group, "line", cls="whisker", x1=left, y1=down - 3, x2=right, y2=down + 3)


def _key(kind: Kind) -> Markup:
    """The kind's mark alone, for the legend."""
    svg = canvas(kind, height=10, width=10)
    _mark(add(svg, "g", cls=kind), kind, 5, 5)
    return markup(svg)
