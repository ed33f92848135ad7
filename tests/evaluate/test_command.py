"""`pipe eval`: its options, and the tables and sentences that it prints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.cli.evaluate import show_scores
from pipeline.evaluate import published
from tests.evaluate.bench import SMALL, Bench
from tests.evaluate.support import run_before_eval
from tests.support.exported import demo


def test_the_table_and_the_sentence_below_it_fit_a_terminal(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.eval()
    show_scores(bench.run, False)
    lines = capsys.readouterr().out.splitlines()
    assert "r: 10 questions of test" in lines[0]
    cells = next(line for line in lines if line.strip().startswith("adapter")).split()
    assert cells[:6] == ["adapter", "70.0%", "39.7-89.2", "100.0%", "0.0%", "1.649"]
    said = "adapter answers 70.0% right where base answered 0.0%: +70.0 points (+22.8 to +89.2)"
    assert lines[-1].startswith(said) and lines[-1].endswith(
        "ollama answers as many right as adapter"
    )
    assert all(len(line) <= 80 for line in lines[:-1])
    show_scores(bench.run, True)
    assert json.loads(capsys.readouterr().out)["items"] == 10


def test_each_table_bears_the_name_of_its_own_task_whatever_the_names_are(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a-further-one.jsonl"
    path.write_text(json.dumps({"question": "What is 3 and 1?", "reference": "4"}) + "\n")
    bench.eval(demo(*SMALL, f"eval.tasks=[test, {path}]"))
    show_scores(bench.run, False)
    shown = capsys.readouterr().out
    assert "r: 10 questions of test" in shown and "r: 1 questions of a-further-one" in shown


def test_options_are_shorthands_for_values_of_the_recipe() -> None:
    options = ["--task", "gsm8k", "--engine", "q4_k_m", "--engine", "Base", "--limit", "3"]
    options += ["--samples", "4", "--temperature", "0.6"]
    done = CliRunner().invoke(main, ["eval", "-r", "demo", *options, "--dry-run", "--json"])
    assert done.exit_code == 0
    settings = json.loads(done.stdout)["eval"]["settings"]
    asked = {key: settings[key] for key in ("tasks", "engines", "limit", "samples", "temperature")}
    assert asked == {
        "tasks": ["gsm8k"],
        "engines": ["Q4_K_M", "base"],
        "limit": 3,
        "samples": 4,
        "temperature": 0.6,
    }
    greedy = CliRunner().invoke(main, ["eval", "-r", "demo", "--samples", "4"])
    assert greedy.exit_code == 2 and "greedy samples are all the same" in greedy.stderr


def test_a_model_trained_in_full_is_called_so_and_merged_is_said_to_be_left_out(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.run = run_before_eval(bench.run.root.parent / "full", {"method": "full"})
    bench.engines[1] = replace(bench.engines[1], label="tuned (full)")
    bench.eval()
    assert bench.notes == [
        "merged is left out: trained in full, `adapter` is the tuned model itself."
    ]
    assert list(published(bench.run)["engines"]) == ["base", "adapter", "ollama"]
    show_scores(bench.run, False)
    shown = capsys.readouterr().out
    assert "tuned (full) answers 70.0% right where base answered 0.0%" in shown
    assert "ollama answers as many right as tuned (full)" in shown and "adapter" not in shown
    bench.eval(demo(*SMALL, "eval.engines=[base,adapter,ollama]"))
    assert not any("merged" in note for note in bench.notes)  # it was not asked for
