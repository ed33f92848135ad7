"""Reading what the user types: lines, longer texts, and the history of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

import click

_QUOTES = '"""'
_LINES_KEPT = 1000
_BOLD, _PLAIN = "\x01\x1b[1m\x02", "\x01\x1b[0m\x02"
"""Between \\x01 and \\x02 stands what readline must not count as columns."""


def read_question(read: Callable[[str], str]) -> str:
    """One question: a line, lines that end in a backslash, or what stands between triple quotes.

    Raises EOFError at the end of the input.
    """
    line = read("> ")
    if line.lstrip().startswith(_QUOTES):
        lines = [line.lstrip().removeprefix(_QUOTES)]
        while not lines[-1].rstrip().endswith(_QUOTES):
            lines.append(read("... "))
        return "\n".join(lines).rstrip().removesuffix(_QUOTES).strip("\n")
    while line.endswith("\\"):
        line = f"{line[:-1]}\n{read('... ')}"
    return line


@contextmanager
def typed(history: Path, words: Iterable[str]) -> Iterator[Callable[[str], str]]:
    """Reads lines from standard input: with readline in a terminal, where `words` are completed
    and `history` is kept, readable by nobody else; without a prompt from anything else.
    """
    lenient_input()
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield lambda _: input()
        return
    import readline

    kept = _prepare(history)
    if kept:
        readline.read_history_file(history)
        readline.set_history_length(_LINES_KEPT)
    readline.set_completer(_completer(sorted(words)))
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    try:
        yield lambda prompt: input(f"{_BOLD}{prompt}{_PLAIN}")
    finally:
        if kept:
            readline.write_history_file(history)
            history.chmod(0o600)


def lenient_input() -> TextIO:
    """Standard input, in which bytes that are no text become U+FFFD."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    return sys.stdin


def history_file(run: Path) -> Path:
    """Where typed questions are kept: in the run's folder if there is one, else in XDG's state."""
    if run.is_dir():
        return run / ".chat_history"
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "pipe" / "chat_history"


def _prepare(history: Path) -> bool:
    """Make the file, for its owner alone; False where it cannot be made, which is said."""
    try:
        history.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(history, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        click.secho(f"What you type is not kept: {error}.", fg="yellow", err=True)
        return False
    return True


def _completer(words: list[str]) -> Callable[[str, int], str | None]:
    def complete(text: str, state: int) -> str | None:
        found = [word for word in words if text and word.startswith(text)]
        return found[state] if state < len(found) else None

    return complete
