"""The frame of a chart: scales, ticks and grid, as SVG that takes its colours from the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from pipeline.report.safe import visible

WIDTH, HEIGHT = 360, 222
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 16, 42
_CHARACTER = 7.0
"""Mean width of a character at 12.5 px, in px."""
_BOLD = 9.0
"""Of one in bold capitals and digits, as type names are."""

Form = Callable[[float], str]


@dataclass(frozen=True)
class Scale:
    """From values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (self._even(each) for each in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def _even(self, value: float) -> float:
        return log10(value) if self.log else value

    def ticks(self, count: int = 4) -> list[float]:
        """Round values within the scale: powers of ten, or steps of 1, 2, 2.5 or 5 times one."""
        if self.log:
            ends = (ceil(log10(self.low) - 1e-9), floor(log10(self.high) + 1e-9))
            powers = range(ends[0], ends[1] + 1)
            found = [10.0**power for power in powers[:: max(1, len(powers) // count)]]
            return found if len(found) > 1 else [self.low, self.high]
        rough = (self.high - self.low) / count or 1.0
        power = 10.0 ** floor(log10(rough))
        step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= 0.999 * rough)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


def horizontal(low: float, high: float, *, log: bool = False, pad: float = 0.0) -> Scale:
    low, high = _widened(low, high, log, pad)
    return Scale(low, high, LEFT, WIDTH - RIGHT, log)


def vertical(low: float, high: float, *, log: bool = False, pad: float = 0.0) -> Scale:
    low, high = _widened(low, high, log, pad)
    return Scale(low, high, HEIGHT - BOTTOM, TOP, log)


def _widened(low: float, high: float, log: bool, pad: float) -> tuple[float, float]:
    """Some room at both ends; and room at all where the values are equal."""
    if log:
        factor = (high / low) ** pad if high > low else 2.0
        return low / factor, high * factor
    room = pad * (high - low) if high > low else (abs(high) or 1.0) / 2
    return low - room, high + room


def canvas(label: str, height: int = HEIGHT, width: int = WIDTH) -> Element:
    """An empty SVG; `label` says to who cannot see it what it shows."""
    box = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": visible(label)}
    return Element("svg", box)


def add(parent: Element, tag: str, text: str | None = None, **attributes: object) -> Element:
    """A child; `_` in a name stands for `-`, and `cls` for class."""
    named = {_NAMES.get(key, key.replace("_", "-")): str(v) for key, v in attributes.items()}
    child = SubElement(parent, tag, named)
    child.text = visible(text)
    return child


_NAMES = {"cls": "class", "viewBox": "viewBox"}


def markup(svg: Element) -> Markup:
    return Markup(tostring(svg, encoding="unicode", short_empty_elements=True))


def text_width(text: str, *, bold: bool = False) -> float:
    return len(text) * (_BOLD if bold else _CHARACTER)


def frame(svg: Element, x: Scale, y: Scale, forms: tuple[Form, Form], names: Sequence[str]) -> None:
    """Grid, ticks with their values, and the names of both axes."""
    for tick in y.ticks():
        add(svg, "line", cls="grid", x1=x.start, x2=x.end, y1=y(tick), y2=y(tick))
        add(svg, "text", forms[1](tick), cls="tick end", x=x.start - 6, y=y(tick) + 4)
    for tick, label in _apart(x, forms[0]):
        add(svg, "text", label, cls="tick middle", x=_inside(x(tick), label), y=y.start + 17)
    add(svg, "line", cls="axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start)
    add(svg, "text", names[0], cls="name end", x=x.end, y=y.start + 35)
    if names[1]:
        add(svg, "text", names[1], cls="name", x=2, y=TOP - 3)


def _inside(x: float, label: str) -> float:
    return round(min(x, WIDTH - text_width(label) / 2), 1)


def _apart(scale: Scale, form: Form) -> list[tuple[float, str]]:
    """The ticks whose labels do not run into one another."""
    kept: list[tuple[float, str]] = []
    end = float("-inf")
    for tick in scale.ticks():
        label = form(tick)
        half = text_width(label) / 2
        if scale(tick) - half > end + 4:
            kept.append((tick, label))
            end = scale(tick) + half
    return kept
