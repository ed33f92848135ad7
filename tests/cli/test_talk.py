"""What a finished export names to talk to it."""

from pathlib import Path

from pipeline.cli.stages import _talk
from pipeline.recipe import load
from pipeline.run import Run
from tests.support.finished import FILES, finished, publish

RECIPE = load("demo").recipe


def test_ollama_s_command_where_it_was_given_these_files(tmp_path: Path) -> None:
    run = finished(tmp_path / "demo", RECIPE)
    assert _talk(run) == "ollama run demo"


def test_the_file_itself_where_ollama_has_others_or_none(tmp_path: Path) -> None:
    run = finished(tmp_path / "demo", RECIPE)
    publish(run, RECIPE, "export", {**FILES["export"], "demo-Q8_0.gguf": 901})
    assert _talk(run) == _talk(Run(tmp_path / "none")) == "pipe chat"
