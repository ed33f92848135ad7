"""One question for scripts: the answer on standard output, the thinking apart from it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pipeline.cli.screen import dimmed, harmless
from pipeline.cli.terminal import cut_off
from pipeline.cli.transcript import Transcript

if TYPE_CHECKING:
    from pipeline.chat import Part
    from pipeline.engines.talk import Ending, Manner, Partner


class Printer:
    """Prints a reply as it streams: raw into a file or a pipe, harmless on a terminal.

    `together` has the thinking on standard output, too.
    """

    def __init__(self, *, together: bool) -> None:
        self._together = together
        self._part: Part | None = None

    def show(self, part: Part, text: str) -> None:
        if self._part and part != self._part:
            click.echo("\n", err=self._apart(self._part))
        self._part = part
        stream = sys.stderr if self._apart(part) else sys.stdout
        shown = harmless(text) if stream.isatty() else text
        click.echo(dimmed(part, shown), nl=False, err=self._apart(part))
        stream.flush()

    def end(self) -> None:
        if self._part:
            click.echo(err=self._apart(self._part))

    def _apart(self, part: Part) -> bool:
        return part == "thinking" and not self._together


def ask(
    partner: Partner,
    question: str,
    system: str,
    manner: Manner,
    *,
    as_json: bool,
    together: bool,
) -> None:
    """Stream the reply, or give it as JSON. Exits 1 for one that was cut off."""
    from pipeline.engines.talk import Ending, Piece, Remark

    said = {"thinking": "", "answer": ""}
    printer, ending = Printer(together=together), None
    for event in partner.stream(Transcript(system).asking(question.strip()), manner):
        if isinstance(event, Remark):
            click.secho(harmless(event.text), fg="yellow", err=True)
        elif isinstance(event, Piece):
            said[event.part] += event.text
            if not as_json:
                printer.show(event.part, event.text)
        else:
            ending = event
    printer.end()
    assert isinstance(ending, Ending)
    if ending.reply:
        said = {"thinking": ending.reply.thinking, "answer": ending.reply.answer}
    if as_json:
        _say_json(said, ending)
    if ending.reason != "stop":
        click.secho(cut_off(ending, manner.max_new_tokens), fg="yellow", err=True)
        raise click.exceptions.Exit(1)


def _say_json(said: dict[str, str], ending: Ending) -> None:
    from pipeline.cli.show import say_json

    first = ending.first_token_s
    say_json(
        {
            **said,
            "stopped": ending.reason == "stop",
            "tokens": ending.tokens,
            "seconds": round(ending.seconds, 3),
            "first_token_s": None if first is None else round(first, 3),
        }
    )
