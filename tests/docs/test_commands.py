"""Every command that the pages show is one, with its settings; the reference is fresh."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import dropwhile, takewhile
from pathlib import Path

import click
import pytest

from pipeline.cli import main
from pipeline.recipe import load
from scripts import command_reference
from tests.docs.pages import PAGES, ROOT, Line, lines, resolved, tokens

ALSO = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
LINES = [line for page in PAGES for line in lines(page)]
PROGRAMS = {"pipe", "ollama", "curl", "tensorboard"}
"""What tests/docs/reader.py can type."""
ALL = LINES + [line for page in ALSO for line in lines(page)]


def words_of(line: Line) -> Iterator[list[str]]:
    """The arguments of each `pipe` in the line, after what is set for it alone."""
    for words in line.commands:
        command = list(dropwhile(re.compile(r"[A-Z_]+=").match, words))
        if command[:1] == ["pipe"]:
            yield list(takewhile(lambda word: word not in {"|", ">"}, command[1:]))


def check(arguments: list[str]) -> None:
    """Parses, and what it overrides are keys of the recipe that it means."""
    context = resolved(arguments)
    recipe = context.params.get("recipe")
    load(
        recipe if recipe and not Path(recipe).suffix else "llama3.2-3b-r1",
        context.params.get("overrides", ()),
    )


@pytest.mark.parametrize("line", sorted(set(ALL), key=str), ids=str)
def test_a_shown_command_is_as_the_command_line_and_the_recipe_have_it(line: Line) -> None:
    for arguments in words_of(line):
        check(arguments)


@pytest.mark.parametrize("line", [line for line in LINES if line.reason is None], ids=str)
def test_what_is_not_marked_is_a_command_that_the_tests_can_run(line: Line) -> None:
    for words in line.commands:
        assert words[0] in PROGRAMS, "mark the block: <!-- not run: REASON -->"
        assert not set(words) & {"|", ">", ">>", "<", ";", "&", "--web"}, line


@pytest.mark.parametrize("line", [line for line in ALL if line.reason is not None], ids=str)
def test_a_script_or_target_that_is_named_is_there(line: Line) -> None:
    for words in line.commands:
        if words[0] == "python" and words[1] == "-m":
            assert find_spec(words[2]), words[2]
        elif words[0] == "python":
            assert (ROOT / words[1]).is_file()
        elif words[0] == "make":
            targets = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{words[1]}:", targets, re.MULTILINE)


def examples(command: click.Command) -> list[str]:
    """Lines of a command's help that show it at work."""
    help = command.help or ""
    return re.findall(r"^ *(?:Examples?: )?(pipe [^`\n]*?)\.?$", help, re.MULTILINE)


def every(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from every(command)


@pytest.mark.parametrize("command", list(every(main)), ids=lambda each: each.name)
def test_the_examples_of_a_help_are_right(command: click.Command) -> None:
    for text in examples(command):
        for arguments in words_of(Line("", text)):
            check(arguments)


def test_the_reference_is_what_the_commands_say_of_themselves() -> None:
    assert command_reference.PAGE.read_text(encoding="utf-8") == command_reference.page(), (
        "Run: python scripts/command_reference.py"
    )


def recipes() -> list[tuple[str, str]]:
    """Page, and a YAML block of it that begins as a recipe does."""
    sections = "|".join(("extends", *load("llama3.2-3b-r1").recipe.model_dump()))
    return [
        (page.stem, token.content)
        for page in (*PAGES, *ALSO)
        for token in tokens(page)
        if token.type == "fence" and token.info.strip() == "yaml"
        if re.match(rf"(?:{sections}):", token.content)
    ]


@pytest.mark.parametrize(("name", "text"), recipes())
def test_a_shown_recipe_is_one(name: str, text: str, tmp_path: Path) -> None:
    base = "" if text.startswith("extends:") else "extends: llama3.2-3b-r1\n"
    (tmp_path / "shown.yaml").write_text(base + text)
    load(str(tmp_path / "shown.yaml"))
