"""The pages under docs/, and the shell commands on them."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipeline.cli import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
_MARKER = re.compile(r"<!-- (?:not run: (?P<reason>\S.*?)|(?P<gpu>refused without a GPU)) -->")


@dataclass(frozen=True)
class Line:
    """One line of a ```sh block: what is typed, `&&` between commands."""

    page: str
    """Relative to the root."""
    text: str
    reason: str | None = None
    """Why it is not run; None where it is."""
    gpu: bool = False
    """Without a GPU it is refused, before any work."""

    @property
    def commands(self) -> list[list[str]]:
        """Each command's words, comments left out."""
        return list(_split(self.text))

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


@cache
def tokens(page: Path) -> tuple[Token, ...]:
    """The page's blocks and inline content, as CommonMark with tables has them."""
    return tuple(MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")))


def blocks(page: Path) -> Iterator[tuple[str, re.Match[str] | None]]:
    """The text of each ```sh block, and the marker directly above it."""
    for before, token in pairwise((None, *tokens(page))):
        if token and token.type == "fence" and token.info.strip() == "sh":
            yield token.content, _marker(before, token)


def lines(page: Path) -> Iterator[Line]:
    """The lines of all ```sh blocks, in order."""
    for content, marker in blocks(page):
        reason, gpu = marker.group("reason", "gpu") if marker else (None, None)
        for text in content.replace("\\\n", " ").splitlines():
            if text.strip() and not text.lstrip().startswith("#"):
                yield Line(page.relative_to(ROOT).as_posix(), text, reason, gpu is not None)


def run_lines(page: Path) -> tuple[list[Line], list[Line]]:
    """Those of the first block, and those of the others: all that is run."""
    first = len(next(blocks(page))[0].splitlines())
    found = list(lines(page))
    return found[:first], [line for line in found[first:] if line.reason is None]


def _marker(before: Token | None, fence: Token) -> re.Match[str] | None:
    """Where it stands directly above the fence."""
    if before is None or before.type != "html_block":
        return None
    assert before.map and fence.map
    return _MARKER.fullmatch(before.content.strip()) if before.map[1] == fence.map[0] else None


def _split(text: str) -> Iterator[list[str]]:
    reader = shlex.shlex(text, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    words: list[str] = []
    for word in reader:
        if word == "&&":
            yield words
            words = []
        else:
            words.append(word)
    yield words


def resolved(arguments: Sequence[str]) -> click.Context:
    """The context of the command that `pipe ARGUMENTS` is. Raises UsageError where it is wrong."""
    command: click.Command = main
    context: click.Context | None = None
    rest, name = list(arguments), "pipe"
    while True:
        context = command.make_context(name, rest, parent=context)
        left = [*context._protected_args, *context.args]
        if not isinstance(command, click.Group) or not left:
            return context
        found, inner, rest = command.resolve_command(context, left)
        assert found is not None and inner is not None
        name, command = found, inner
