"""`pipe compare` at the prompt: what it lists, refuses, shows and pastes."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.compare import compare
from pipeline.errors import RecipeError
from tests.study.compare.support import GB, Bench, Figures, bench


@pytest.fixture(autouse=True)
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """In an empty folder, with stages that do nothing but leave figures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPE_RECIPE", raising=False)
    lean = Figures(right=82, memory=GB, seconds=50)
    return bench(Path("runs") / "demo", monkeypatch, r_16=lean)


def pipe(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(compare, ["-r", "demo", *arguments])
    assert done.exit_code == code, done.output
    return done


def test_a_dry_run_lists_the_variants_and_the_refused_and_touches_nothing(made: Bench) -> None:
    done = pipe("--vary", "lora.r=8,16", "--vary", "method=qlora,lora-8bit", "--dry-run")
    assert done.stdout.splitlines() == [
        "recipe demo, 4 variants in runs/demo/compare",
        "  r=8,method=qlora",
        "  r=8,method=lora-8bit: refused: method lora-8bit needs a GPU; a CPU has qlora, lora "
        "and full: Unsloth opens no 8-bit base there",
        "  r=16,method=qlora",
        "  r=16,method=lora-8bit: refused: method lora-8bit needs a GPU; a CPU has qlora, lora "
        "and full: Unsloth opens no 8-bit base there",
        "time: not known, none was timed yet",
    ]
    assert not Path("runs").exists() and made.done == []


def test_a_dry_run_says_how_long_by_those_that_were_timed() -> None:
    pipe("--vary", "r=8,16", "--stages", "train")
    asked = ("--vary", "r=8,16,32,64", "--stages", "train", "--dry-run")
    assert pipe(*asked).stdout.splitlines()[-1] == "time: about 3 min, by those that were timed"
    found = json.loads(pipe(*asked, "--json").stdout)
    assert found["expected_seconds"] == 2 * (105 + 55) / 2
    assert found["variants"][0] == {
        "label": "r=8",
        "settings": {"train.lora.r": 8},
        "reason": None,
    }


def test_the_table_the_best_and_where_the_page_is() -> None:
    lines = pipe("--vary", "method=qlora,lora-8bit", "--vary", "r=8,16").stdout.splitlines()
    assert any(
        "method=lora-8bit,r=8 refused: method lora-8bit needs a GPU" in each for each in lines
    )
    assert lines[-1] == "runs/demo/compare/compare.html"
    lines = pipe("--vary", "r=8,16").stdout.splitlines()
    best = next(each for each in lines if each.strip().startswith("r=16 *"))
    assert " ".join(best.split()[2:]) == "82.0% 78.0-82.0 1.00 50.0% 50 s 2.00× 0.5 2→2.1"
    assert all(len(each) <= 80 for each in lines[:7])
    assert lines[-3].startswith("Optimal configuration: train.lora.r=16: 82.0%")


def test_a_long_label_cuts_no_figure_off() -> None:
    vary = [f"--vary={key}" for key in ("r=8,16", "learning_rate=1e-4,2e-4", "alpha=8,16")]
    rows = [line for line in pipe(*vary).stdout.splitlines() if "76.0-80.0" in line]
    assert len(rows) == 8 and all("2→2.1" in row for row in rows)


def test_json_is_results_json() -> None:
    found = json.loads(pipe("--vary", "r=8,16", "--json").stdout)
    assert found == json.loads(Path("runs/demo/compare/results.json").read_text())
    assert found["best"] == "r=16"


def test_without_vary_the_last_comparison_is_shown_again(made: Bench) -> None:
    refused = pipe(code=2)
    assert "Name what varies, such as --vary lora.r=8,16" in refused.stderr
    first = pipe("--vary", "r=8,16", "--markdown").stdout
    made.done.clear()
    assert pipe("--markdown").stdout == first and made.done == []
    assert first.startswith("### Variants of demo: train.lora.r\n\n| Variant |")


def test_one_by_an_error_shows_it(made: Bench) -> None:
    made.figures = {"r=16": Figures(off=(2.0, 3.0))}
    lines = pipe("--vary", "r=8,16", "--set", "eval.metrics=[mae]").stdout.splitlines()
    assert any("MAE" in each for each in lines)
    best = next(each for each in lines if each.strip().startswith("r=16 *"))
    assert best.split()[2:4] == ["2.5", "2-3"]
    assert lines[-3].startswith("Optimal configuration: train.lora.r=16: MAE 2.5 (2 to 3),")


def test_the_last_one_is_shown_as_stale_once_the_run_has_other_rows(made: Bench) -> None:
    made.prepare(made.plan("r=8,16").work)
    pipe("--vary", "r=8,16")
    assert pipe().stderr == ""
    made.prepare(made.plan("r=8,16", overrides=["data.no_thinking_share=0.3"]).work)
    said = "Stale: made of other rows. Again: pipe compare -r demo --vary train.lora.r=8,16\n"
    assert pipe().stderr == said


def test_what_was_damaged_is_said_and_not_shown() -> None:
    pipe("--vary", "r=8,16")
    path = Path("runs/demo/compare/results.json")
    for text in ("{", "[]", '{"schema": 99}'):
        path.write_text(text)
        assert "results.json" in str(pipe(code=1).exception)


@pytest.mark.parametrize("wrong", [["--vary", "lora.rank=8,16"], ["--vary", "r=8"]])
def test_a_wrong_vary_is_wrong_usage(wrong: list[str]) -> None:
    error: Any = pipe(*wrong, code=1).exception
    assert isinstance(error, RecipeError) and error.exit_code == 2
    assert not Path("runs").exists()


def test_the_help_is_one_short_sentence_with_an_example() -> None:
    said = compare.help or ""
    assert len(said.partition("\n")[0]) <= 60 and said.partition("\n")[0].endswith(".")
    assert "pipe compare --vary lora.r=8,16,32" in said
