"""`pipe log` as a user types it."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from pipeline.cli.log import log
from tests.report.fixture import write_run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPE_RECIPE", "demo")


def pipe_log(*arguments: str) -> Result:
    return CliRunner().invoke(log, list(arguments), prog_name="pipe log")


def test_it_writes_the_log_and_says_where() -> None:
    write_run(Path("runs/demo"))
    done = pipe_log()
    assert (done.exit_code, done.stdout, done.stderr) == (0, "runs/demo/log.md\n", "")
    assert Path("runs/demo/log.md").read_text("utf-8").startswith("# demo: experiment log\n")
    assert json.loads(pipe_log("--json").stdout) == {"log": "runs/demo/log.md"}


def test_it_prints_the_same_log_and_writes_nothing() -> None:
    write_run(Path("runs/other"))
    done = pipe_log("--run", "other", "--stdout")
    assert done.exit_code == 0 and not Path("runs/other/log.md").exists()
    pipe_log("--run", "other")
    assert done.stdout == Path("runs/other/log.md").read_text("utf-8")


def test_what_is_missing_is_said_on_standard_error() -> None:
    write_run(Path("runs/demo"), without=("serve", "check", "eval"))
    done = pipe_log("--json")
    assert json.loads(done.stdout) == {"log": "runs/demo/log.md"}
    assert done.stderr.splitlines() == [
        "The model is not registered with Ollama. Run: pipe register -r runs/demo/recipe.yaml",
        "No gate has been checked. Run: pipe check -r runs/demo/recipe.yaml",
        "The quality has not been measured. Run: pipe eval -r runs/demo/recipe.yaml",
    ]


def test_one_place_for_the_answer() -> None:
    done = pipe_log("--stdout", "--json")
    assert done.exit_code == 2 and "give one" in done.stderr


def test_its_help_is_one_sentence_with_examples() -> None:
    assert isinstance(log, click.Command) and log.help
    first = log.help.partition("\n")[0]
    assert first.endswith(".") and len(first) <= 60 and "pipe log" in log.help
