"""Draws events on standard error: a live bar in a terminal, plain lines in a log."""

from __future__ import annotations

import json
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from pipeline.run.events import Emit, Event, Measured, Note, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_QUIET_SECONDS = 5.0


def drawing() -> Emit:
    """An Emit for where standard error goes; a live bar ends with the command, however it ends."""
    if not sys.stderr.isatty():
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
        self._task, self._began, self._said, self._open = "", 0.0, 0.0, False

    def __call__(self, event: Event) -> None:
        if isinstance(event, Measured):
            return None
        if isinstance(event, Note):
            return _note(event)
        now = monotonic()
        if event.task != self._task:
            self._task, self._began, self._said = event.task, now, 0.0
        last = event.total is not None and event.done >= event.total
        if last or now - self._said >= _QUIET_SECONDS:
            self._said = now
            click.echo(self._line(event, now - self._began), err=True)

    def _line(self, event: Progress, seconds: float) -> str:
        of = f"/{_number(event.total)}" if event.total is not None else ""
        parts = [f"{event.task}: {_number(event.done)}{of} {event.unit}", figures_of(event)]
        if event.total and 0 < event.done < event.total:
            parts.append(f"{seconds * (event.total - event.done) / event.done:.0f} s left")
        elif seconds >= 1:
            parts.append(f"{seconds:.0f} s")
        return "  ".join(part for part in parts if part)


class _Terminal:
    """One bar at a time; a finished bar stays on the screen."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._task: str = ""
        self._id: Any = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Measured):
            return None
        if isinstance(event, Note):
            self.stop()
            return _note(event)
        if event.task != self._task:
            self._start(event)
        assert self._bars is not None
        self._bars.update(
            self._id, completed=event.done, total=event.total, figures=figures_of(event)
        )
        if event.total is not None and event.done >= event.total:
            self.stop()

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
        )
        self._bars.start()
        self._task = event.task
        self._id = self._bars.add_task(event.task, total=event.total, figures="")

    def stop(self) -> None:
        """Leave the bar as it is and give the cursor back."""
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._task = None, ""
