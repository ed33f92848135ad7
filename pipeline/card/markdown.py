"""Text of others in Markdown: shown as it is, ended by nothing that it holds."""

import re

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ACTIVE = re.compile(r"[\\`*|\[\]~$]|(?<![^\W_])_|_(?![^\W_])|(?<=www)\.|:(?=//)", re.IGNORECASE)
"""What begins Markdown anywhere in a line; an underscore within a word does not (CommonMark 6.2).
The last two would make a link of an address (GFM 6.9)."""
_FIRST = re.compile(r"^(?:(\d{1,9})(?=[.)](?:\s|$))|(?=(?:#{1,6}|[-+]|[-=]{2,})(?:\s|$)))")
"""What begins a heading, a list or an underline at the start of a line."""


def plain(text: str) -> str:
    """Text in one line that Markdown and HTML show as it is, also inside a table."""
    line = " ".join(text.split())
    for mark, entity in _ENTITIES.items():
        line = line.replace(mark, entity)
    line = _ACTIVE.sub(lambda found: f"\\{found[0]}", line)
    return _FIRST.sub(lambda found: f"{found[1] or ''}\\", line)


def code(text: str) -> str:
    """A code span, for outside of tables, that nothing in the text can close."""
    line = " ".join(text.split())
    ticks = "`" * (_longest(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}" if line else ""


def fenced(text: str, language: str) -> str:
    """A block of code that nothing in the text can close."""
    text = text.rstrip("\n")
    ticks = "`" * max(3, _longest(text) + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def _longest(text: str) -> int:
    """The most backticks in a row."""
    return max(map(len, re.findall("`+", text)), default=0)
