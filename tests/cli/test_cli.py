"""The command line: quick to start, clear when it refuses."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pipeline.cli import main
from pipeline.cli.options import with_options
from pipeline.recipe import builtin_names, load
from tests.cli.support import pipe

HEAVY = {"torch", "transformers", "datasets", "unsloth", "numba", "matplotlib"}
ALSO_SLOW = {"pydantic", "rich", "numpy", "httpx", "pyarrow", "tokenizers"}
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPE_RECIPE", raising=False)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom pipeline.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(answer.stdout.rpartition("LOADED")[2].split())
    assert not loaded & (HEAVY | ALSO_SLOW)


def commands(group: click.Group) -> list[tuple[str, click.Command]]:
    return list(group.commands.items())


@pytest.mark.parametrize(("name", "command"), commands(main))
def test_every_command_has_one_sentence_and_an_example(name: str, command: click.Command) -> None:
    assert command.help
    first = command.help.partition("\n")[0]
    assert first.endswith(".") and len(first) <= 60, first
    assert f"pipe {name}" in command.help


def test_recipes_lists_what_is_built_in() -> None:
    code, output = pipe("recipes")
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()] == builtin_names()


def test_a_wrong_key_is_wrong_usage() -> None:
    code, output = pipe("train", "-r", "demo", "--set", "train.learning_rte=1")
    assert code == 2
    assert "did you mean learning_rate?" in output and "Traceback" not in output


def test_a_missing_stage_says_the_next_command() -> None:
    code, output = pipe("train", "-r", "demo")
    assert (code, output) == (
        1,
        "pipe: runs/demo/data is not there or not finished.\nRun: pipe prepare -r demo\n",
    )


@pytest.mark.parametrize("given", ["-r a.yaml", r"-r 'a\1b.yaml'", r"-r 'C:\new\g<0>.yaml'"])
def test_a_hints_command_names_the_recipe_letter_by_letter(given: str) -> None:
    assert with_options("Run: pipe train", given) == f"Run: pipe train {given}"


def test_a_hint_names_the_recipe_to_every_command_that_takes_one_and_to_no_other() -> None:
    takes = {
        name: any("--recipe" in option.opts for option in command.params)
        for name, command in main.commands.items()
    }
    assert takes["quant"] and not takes["doctor"]
    for name, does in takes.items():
        assert with_options(f"pipe {name}", "-r mine") == f"pipe {name}" + " -r mine" * does


def test_the_command_for_a_base_that_nobody_knows_is_one_that_runs() -> None:
    code, output = pipe("plan", "-r", "demo", "--set", "model.base=nobody/x")
    assert code == 1
    command = re.search(r"See what is: pipe (.*?);", output)
    assert command and pipe(*shlex.split(command[1]))[0] == 0


def test_init_writes_a_recipe_that_loads_and_is_not_overwritten() -> None:
    assert pipe("init", "--extends", "demo", "--name", "mine") == (
        0,
        "pipe.yaml written. Next: pipe prepare\n",
    )
    code, output = pipe("recipes", "show")
    assert code == 0
    assert re.search(r"^name: mine +# pipe.yaml$", output, re.MULTILINE)
    assert re.search(r"^train.device: cpu +# demo.yaml$", output, re.MULTILINE)
    assert pipe("init")[0] == 1


def test_a_shown_recipe_names_every_value_in_a_line_as_it_may_be_set() -> None:
    code, output = pipe("recipes", "show", "llama3.1-8b-price")
    assert code == 0
    lines = [line.rpartition("  # ") for line in output.splitlines()]
    shown = dict(said.rstrip().split(": ", 1) for said, _, _ in lines)
    assert {origin for _, _, origin in lines} == {"llama3.1-8b-price.yaml", "default"}
    assert shown["data.sources.0.columns.reply_start"] == "Price is $"
    loaded = load("llama3.1-8b-price")
    again = load("llama3.1-8b-price", [f"{key}={value}" for key, value in shown.items()])
    assert list(shown) == list(loaded.values) and again.recipe == loaded.recipe


def test_a_dry_run_touches_nothing() -> None:
    code, output = pipe("run", "-r", "demo", "--dry-run")
    assert code == 0
    assert "data: now missing; reads builtin:tiny-llama, builtin:samples/train.jsonl" in output
    assert not Path("runs").exists()


def test_status_of_a_new_run() -> None:
    code, output = pipe("status", "-r", "demo")
    assert code == 0
    assert output.splitlines()[1].split() == ["data", "missing"]
    assert output.splitlines()[-1] == "next: pipe prepare -r demo"


def test_export_outside_a_run_needs_a_base_and_a_place() -> None:
    for given in (("--base", "x"), ("--out", "x"), ("--adapter", "x"), ("--own-template",)):
        code, output = pipe("export", *given)
        assert code == 2 and "name --base and --out" in output


def test_export_options_are_recipe_values() -> None:
    from pipeline.cli.stages import _wished
    from pipeline.recipe import load

    wished = _wished(("q4_k_m",), (r"blk\.(0|1)\.ffn=q8_0",), "my matrix.gguf", True)
    asked = load("demo", wished).recipe.export
    assert asked.quantize == ("Q4_K_M",) and asked.adapter_gguf
    assert asked.tensor_types == (r"blk\.(0|1)\.ffn=q8_0",)
    assert asked.importance and asked.importance.file == "my matrix.gguf"
    # `train` collects, whatever file the recipe names, on as many tokens as it says
    named = ["export.importance.file=gone.gguf", "export.importance.tokens=1024"]
    collected = load("demo", [*named, *_wished((), (), "train", False)]).recipe.export.importance
    assert collected and collected.file is None and collected.tokens == 1024


def readme_commands() -> list[str]:
    """Every `pipe` command in README's code blocks, `&&` chains taken apart."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    parts = [part.strip().removeprefix("$ ") for line in lines for part in line.split("&&")]
    return [part for part in parts if part.startswith("pipe ")]


def test_readme_has_commands() -> None:
    assert len(readme_commands()) >= 6


@pytest.mark.parametrize("text", readme_commands())
def test_readme_commands_are_as_the_command_line_has_them(text: str) -> None:
    name, *arguments = shlex.split(text)[1:]
    command = main.commands[name]
    with command.make_context(name, arguments, resilient_parsing=False) as context:
        assert context.command is command


def test_readme_ends_with_a_tree_of_every_file() -> None:
    """A phrase per file, none missing, none gone."""
    tree = README.read_text().rpartition("## The files")[2]
    listed = set(re.findall(r"^ *([\w.-]+\.(?:py|sh)) ", tree, re.MULTILINE))
    root = README.parent
    there = {
        path.name
        for folder in ("pipeline", "scripts")
        for path in (root / folder).rglob("*")
        if path.suffix in {".py", ".sh"} and not path.name.startswith("__")
    }
    assert listed == there
