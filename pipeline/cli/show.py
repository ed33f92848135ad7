"""Draws events on standard error: a live bar or panel in a terminal, plain lines in a log."""

from __future__ import annotations

import json
import os
import sys
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from pipeline.run.events import Emit, Event, Measured, Note, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from pipeline.cli.panel import Panel, Watched

_QUIET_SECONDS = 5.0


def drawing() -> Emit:
    """An Emit for where standard error goes; a live bar ends with the command, however it ends."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return _Lines()
    terminal = _Terminal()
    click.get_current_context().call_on_close(terminal.stop)
    return terminal


def say_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))


def figures_of(event: Progress) -> str:
    return "  ".join(f"{name} {value}" for name, value in event.figures.items())


def _number(value: float) -> str:
    """Whole numbers whole, from a million on in millions."""
    return f"{value / 1e6:,.1f}M" if value >= 1e6 else f"{value:g}"


def _note(event: Note) -> None:
    click.secho(event.text, fg="yellow" if event.warning else None, err=True)


class _Lines:
    """A line at a task's first and last event, and every few seconds between."""

    def __init__(self) -> None:
        self._task, self._began, self._said = "", 0.0, 0.0
        self._first: tuple[float, float] | None = None
        """Seconds and units done when the first unit was: opening a model is no part of a rate."""
        self._watched: Watched | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            return _note(event)
        now = monotonic()
        if isinstance(event, Measured):
            return self._measured(event, now)
        if event.task != self._task:
            self._task, self._began, self._said, self._first = event.task, now, 0.0, None
        if self._first is None and event.done:
            self._first = now, event.done
        last = event.total is not None and event.done >= event.total
        if last or now - self._said >= _QUIET_SECONDS:
            self._said = now
            click.echo(self._line(event, now), err=True)

    def _measured(self, event: Measured, now: float) -> None:
        """As often as progress; an evaluation at once, for there are few."""
        from pipeline.cli.panel import brief

        first = self._watched
        watched = self._watched = _watching(first, event, now)
        watched.take(event, now)
        if "loss" not in event.values:
            return click.echo(brief(event), err=True)
        if watched is not first or watched.done or now - self._said >= _QUIET_SECONDS:
            self._said = now
            click.echo(watched.line(now), err=True)

    def _line(self, event: Progress, now: float) -> str:
        seconds = now - self._began
        of = f"/{_number(event.total)}" if event.total is not None else ""
        parts = [f"{event.task}: {_number(event.done)}{of} {event.unit}", figures_of(event)]
        if event.total and event.done < event.total:
            since, before = self._first or (now, event.done)
            if event.done > before:
                left = (now - since) * (event.total - event.done) / (event.done - before)
                parts.append(f"{left:.0f} s left")
        elif seconds >= 1:
            parts.append(f"{seconds:.0f} s")
        return "  ".join(part for part in parts if part)


def _watching(before: Watched | None, event: Measured, now: float) -> Watched:
    """The one that was watched, or another where a new task begins."""
    from pipeline.cli.panel import Watched

    if before is None or before.task != event.task:
        return Watched(event.task, now)
    repeated = event.step < before.step or (event.step == before.step and "loss" in event.values)
    return Watched(event.task, now) if before.done and repeated else before


class _Terminal:
    """One bar or panel at a time; a finished one stays on the screen."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._task: str = ""
        self._id: Any = None
        self._watched: Watched | None = None
        self._panel: Panel | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Measured):
            return self._measured(event)
        if isinstance(event, Note):
            return self._say(event)
        if event.task != self._task:
            self._start(event)
        assert self._bars is not None
        self._bars.update(
            self._id, completed=event.done, total=event.total, figures=figures_of(event)
        )
        if event.total is not None and event.done >= event.total:
            self.stop()

    def _say(self, note: Note) -> None:
        """Above a panel at work, below anything else."""
        if self._panel and self._watched and not self._watched.done:
            return self._panel.say(note)
        self.stop()
        _note(note)

    def _measured(self, event: Measured) -> None:
        from pipeline.cli.panel import Panel, brief

        now = monotonic()
        was_done = self._watched is not None and self._watched.done
        before, self._watched = self._watched, _watching(self._watched, event, now)
        self._watched.take(event, now)
        if self._panel and before is self._watched:
            return
        if was_done and before is self._watched:  # its panel stands finished, further up
            return click.echo(brief(event), err=True)
        self.stop()
        self._panel = Panel(self._watched)

    def _start(self, event: Progress) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self.stop()
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
            # time left by all that was done since the first unit was, as in a log
            speed_estimate_period=inf,
        )
        self._bars.start()
        self._task = event.task
        self._id = self._bars.add_task(event.task, total=event.total, figures="")

    def stop(self) -> None:
        """Leave what is drawn as it is and give the cursor back."""
        for drawn in (self._bars, self._panel):
            if drawn is not None:
                drawn.stop()
        self._bars, self._panel, self._task = None, None, ""
