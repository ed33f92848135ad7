"""How a reply is drawn as it streams: its thinking dimmed or folded, its answer plain."""

from __future__ import annotations

import re
import sys
from time import monotonic
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.chat import Part

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_ERASE_LINE = "\r\x1b[K"
_REDRAW_SECONDS = 0.1


def harmless(text: str) -> str:
    """Text without what moves a terminal's cursor, changes its colours or its title, and without
    lone surrogates, which no terminal takes.
    """
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))


def dimmed(part: Part, text: str) -> str:
    """Thinking is dim; an answer is left as it is."""
    return click.style(text, dim=True) if part == "thinking" else text


class Screen:
    """Draws one reply on standard output; where that is no terminal, without any escape code.

    `folded` shows a line that counts instead of the thinking.
    """

    def __init__(self, *, folded: bool) -> None:
        self._folded = folded
        self._live = sys.stdout.isatty()
        self._part: Part | None = None
        self._began = self._drawn = monotonic()
        self._counted = 0
        """Tokens of thinking so far."""

    def show(self, part: Part, text: str, tokens: int) -> None:
        if part != self._part:
            self._turn_to(part)
        if part == "thinking":
            self._counted = tokens
        if part == "thinking" and self._folded:
            return self._count()
        click.echo(dimmed(part, harmless(text)), nl=False)
        sys.stdout.flush()

    def end(self) -> None:
        """The cursor is at a line's beginning afterwards."""
        if self._part == "thinking" and self._folded:
            self._fold()
        elif self._part:
            click.echo()
        self._part = None

    def _turn_to(self, part: Part) -> None:
        if self._part == "thinking" and self._folded:
            self._fold()
        elif self._part:
            click.echo("\n")
        self._part = part

    def _count(self) -> None:
        now = monotonic()
        if self._live and now - self._drawn >= _REDRAW_SECONDS:
            self._drawn = now
            click.secho(f"{_ERASE_LINE}thinking ... {self._figures()}", dim=True, nl=False)
            sys.stdout.flush()

    def _fold(self) -> None:
        click.secho(
            f"{_ERASE_LINE if self._live else ''}thought: {self._figures()}; /last shows it",
            dim=True,
        )

    def _figures(self) -> str:
        return f"{self._counted:,} tokens, {monotonic() - self._began:.1f} s"
