"""Write docs/commands.md: every command's help, as the command line prints it."""

from collections.abc import Iterator
from pathlib import Path

import click

from pipeline.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
WIDTH = 88
HEAD = """\
# Commands

What each command's `--help` prints, in the order of the work; `scripts/command_reference.py` writes
this page. How they fit together is on [the first page](index.md). Exit codes: 0 done, 1 the work
failed, 2 it was asked wrongly, 130 interrupted.
"""


def with_names(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """A command's full name and its help, then those of the commands in it."""
    context = click.Context(
        command, parent, info_name=name, terminal_width=WIDTH, **command.context_settings
    )
    # click keeps --help as whoever asked first in this process had it, which may be without -h
    command._help_option = None
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from with_names(found, each, context)


def page() -> str:
    """The whole page."""
    sections = (f"## {name}\n\n```text\n{help}\n```\n" for name, help in with_names(main, "pipe"))
    return "\n".join([HEAD, *sections])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
