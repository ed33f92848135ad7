"""The figures of a training while it runs: a panel in a terminal, a line in a log."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import ceil, isfinite, log
from time import monotonic

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel as Box
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.report.words import duration, number, share, size
from pipeline.run.events import Measured, Note

_WIDE = 80
"""Columns from which on the curve stands beside the figures."""
_WIDEST = 120
_MOST_POINTS = 512
"""Of a curve; from there on each stands for twice as many steps."""
_RECENT = 20
"""Steps that speed and time left are taken from."""
_STEEP = 20.0
"""From this ratio of the largest to the smallest loss on, its curve is logarithmic."""
_BLOCKS, _PLAIN_BLOCKS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"

_SHOWN: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("loss", "loss", "{:.4f}".format),
    ("eval_loss", "eval loss", "{:.4f}".format),
    ("general_loss", "general loss", "{:.4f}".format),
    ("learning_rate", "learning rate", "{:.2e}".format),
    ("grad_norm", "gradient norm", number),
    ("tokens_per_second", "tokens/s", "{:,.0f}".format),
    ("mfu", "MFU", share),
    ("memory_bytes", "memory", size),
)
"""A metric's name, what it is called, how it is written."""


class History:
    """A curve that never grows beyond _MOST_POINTS: neighbours become their mean."""

    def __init__(self) -> None:
        self.points: list[float] = []
        self._stride, self._sum, self._count = 1, 0.0, 0

    def add(self, value: float) -> None:
        if not isfinite(value):
            return
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count == self._stride:
            self.points = [*self.points, self._sum / self._count]
            self._sum, self._count = 0.0, 0
        if len(self.points) == _MOST_POINTS:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [(one + other) / 2 for one, other in pairs]
            self._stride *= 2


class Watched:
    """What is known of a task from its events; `began` is a moment of the clock they come with."""

    def __init__(self, task: str, began: float) -> None:
        self.task, self.began = task, began
        self.step = self.steps = 0
        self.values: dict[str, float] = {}
        self.losses = History()
        self._moments: deque[tuple[int, float]] = deque(maxlen=_RECENT + 1)
        self._speeds: deque[dict[str, float]] = deque(maxlen=_RECENT)

    @property
    def done(self) -> bool:
        return self.step >= self.steps

    def take(self, event: Measured, now: float) -> None:
        values = {name: value for name, value in event.values.items() if value is not None}
        self.values |= values
        self.steps = event.steps
        if "loss" not in values:  # an evaluation, not a step
            return
        if event.step <= self.step:  # begun again from a checkpoint
            self._moments.clear()
        self.step = event.step
        self.losses.add(values["loss"])
        self._moments.append((event.step, now))
        self._speeds.append(values)
        self.values |= self._mean_speeds()

    def _mean_speeds(self) -> dict[str, float]:
        """Over the recent steps, each weighted by its seconds: all their tokens by all their time.

        A copy for the other thread, which draws.
        """
        means = {}
        for name in ("tokens_per_second", "mfu"):
            found = [(s[name], s["seconds"]) for s in self._speeds if {name, "seconds"} <= s.keys()]
            seconds = sum(weight for _, weight in found)
            if seconds > 0:
                means[name] = sum(value * weight for value, weight in found) / seconds
        return means

    def left(self, now: float) -> float | None:
        """Seconds to the last step at the pace of the recent ones; None before two of them."""
        moments = list(self._moments)
        if self.done or len(moments) < 2:
            return None
        (first, began), (last, ended) = moments[0], moments[-1]
        pace = (ended - began) / (last - first)
        return max(0.0, pace * (self.steps - last) - (now - ended))

    def figures(self) -> list[tuple[str, str]]:
        """(what, how much) of what is known, in a fixed order."""
        values = self.values
        return [
            (label, form(values[name]) if isfinite(values[name]) else str(values[name]))
            for name, label, form in _SHOWN
            if name in values
        ]

    def times(self, now: float) -> str:
        left = self.left(now)
        spent = duration(round(now - self.began))
        return spent if left is None else f"{spent}, {duration(round(left))} left"

    def line(self, now: float) -> str:
        """All of it in a line of a log."""
        parts = [f"{self.task}: {self.step:,}/{self.steps:,} steps"]
        parts += [f"{label} {value}" for label, value in self.figures()]
        return "  ".join([*parts, self.times(now)])


def brief(event: Measured) -> str:
    """An evaluation in a line of a log."""
    alone = Watched(event.task, 0.0)
    alone.take(event, 0.0)
    figures = "  ".join(f"{label} {value}" for label, value in alone.figures())
    return f"{event.task}: step {event.step:,}  {figures}"


def span(values: Sequence[float]) -> str:
    """What a curve reaches from and to, in words; empty without values."""
    if not values:
        return ""
    low, high = min(values), max(values)
    steep = ", logarithmic" if _is_steep(low, high) else ""
    return f"{number(high)} to {number(low)}{steep}"


def _is_steep(low: float, high: float) -> bool:
    return low > 0 and high / low >= _STEEP


def curve(values: Sequence[float], width: int, height: int, *, plain: bool = False) -> list[str]:
    """The values as columns of eighths, `height` lines of at most `width` characters.

    More values than columns are drawn as means; steep ones by their logarithm.
    """
    if not values or width < 1:
        return [""] * height
    blocks = _PLAIN_BLOCKS if plain else _BLOCKS
    columns = _means(values, width)
    low, high = min(columns), max(columns)
    if _is_steep(low, high):
        columns = [log(value) for value in columns]
        low, high = log(low), log(high)
    reach = 8 * height - 1
    levels = [1 + round(reach * (v - low) / (high - low)) if high > low else 1 for v in columns]
    return [
        "".join(blocks[min(8, max(0, level - 8 * row))] for level in levels)
        for row in reversed(range(height))
    ]


def _means(values: Sequence[float], width: int) -> list[float]:
    """At most `width` means of neighbours."""
    group = ceil(len(values) / width)
    groups = (values[start : start + group] for start in range(0, len(values), group))
    return [sum(each) / len(each) for each in groups]


class _Drawing:
    """The panel as rich draws it, as wide as the terminal is at that moment."""

    def __init__(self, watched: Watched, clock: Callable[[], float]) -> None:
        self._watched, self._clock = watched, clock

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        if width >= _WIDE:
            title = Text(f"{self._watched.task}: {self._steps()}")
            reach = span(self._watched.losses.points)
            below = Text(f"loss {reach}") if reach else None
            drawn = self._wide(min(width, _WIDEST) - 4, options)
            yield Box(drawn, title=title, subtitle=below, subtitle_align="right", width=_WIDEST)
        else:
            yield self._narrow(width, options)

    def _wide(self, width: int, options: ConsoleOptions) -> RenderableType:
        figures = self._watched.figures()
        room = width - 34
        height = max(3, len(figures))
        lines = curve(self._watched.losses.points, room, height, plain=options.ascii_only)
        table = Table.grid(padding=(0, 2, 0, 0), expand=False)
        table.add_column(width=13, style="dim", no_wrap=True)
        table.add_column(width=15, no_wrap=True)
        table.add_column(width=room, style="cyan", no_wrap=True)
        for place, line in enumerate(lines):
            label, value = figures[place] if place < len(figures) else ("", "")
            table.add_row(label, value, Text(line))
        outer = Table.grid()
        outer.add_row(table)
        outer.add_row(self._bar(width))
        return outer

    def _bar(self, width: int) -> RenderableType:
        times = self._watched.times(self._clock())
        bar = Table.grid(padding=(0, 2, 0, 0))
        bar.add_column(width=max(10, width - len(times) - 2))
        bar.add_column(no_wrap=True)
        steps = self._watched
        bar.add_row(ProgressBar(total=max(1, steps.steps), completed=steps.step), Text(times))
        return bar

    def _narrow(self, width: int, options: ConsoleOptions) -> RenderableType:
        """The loss with its curve, then the other figures, as many on a line as there is room."""
        watched, figures = self._watched, self._watched.figures()
        lines = [f"{watched.task}: {self._steps()}"]
        texts = [f"{label} {value}" for label, value in figures]
        if "loss" in watched.values:
            room = min(40, width - len(texts[0]) - 2)
            (drawn,) = curve(watched.losses.points, room, 1, plain=options.ascii_only)
            lines.append(f"{texts.pop(0)}  {drawn}")
            lines.append("")
        for text in [*texts, watched.times(self._clock())]:
            if lines[-1] and len(lines[-1]) + 2 + len(text) > width:
                lines.append(text)
            else:
                lines[-1] = f"{lines[-1]}  {text}" if lines[-1] else text
        return Text("\n".join(lines), no_wrap=True, overflow="crop")

    def _steps(self) -> str:
        return f"step {self._watched.step:,} of {self._watched.steps:,}"


class Panel:
    """Draws a task until it is stopped; what is said meanwhile stands above it."""

    def __init__(self, watched: Watched, console: Console | None = None) -> None:
        self._live = Live(
            _Drawing(watched, monotonic),
            console=console or Console(stderr=True),
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start(refresh=True)

    def say(self, note: Note) -> None:
        text = Text(note.text, style="yellow" if note.warning else "")
        self._live.console.print(text, soft_wrap=True)

    def stop(self) -> None:
        """Leave the panel as it is and give the cursor back."""
        self._live.stop()
