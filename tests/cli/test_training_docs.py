"""docs/training.md: its commands are the command line's, its settings the recipe's."""

import re
import shlex
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.recipe import load

ROOT = Path(__file__).parents[2]


def commands() -> list[str]:
    text = (ROOT / "docs" / "training.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]


PIPE = [line for line in commands() if line.startswith("pipe ")]


@pytest.mark.parametrize("text", sorted({*PIPE}))
def test_a_command_is_as_the_command_line_and_the_recipe_have_it(text: str) -> None:
    _, name, *arguments = shlex.split(text)
    with main.commands[name].make_context(name, arguments) as context:
        overrides = context.params.get("overrides", ())
    assert len(overrides) == text.count("--set")
    load("llama3.2-3b-r1", list(overrides))


def test_the_scripts_it_names_are_there() -> None:
    scripts = [line.split()[1] for line in commands() if line.startswith("python ")]
    assert scripts and all((ROOT / script).exists() for script in scripts)


def test_every_key_it_names_is_one_of_the_recipe() -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    recipe = load("llama3.2-3b-r1", []).recipe.model_dump()
    for key in re.findall(r"`((?:train|model|data)\.[a-z_.]+)", text):
        section: object = recipe
        for part in key.split("."):
            assert isinstance(section, dict) and part in section, key
            section = section[part]
