"""pipe quant: what it asks the study for, and what it shows of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.quant import quant
from pipeline.errors import RecipeError
from pipeline.study import quant as room
from tests.study.quant.support import refused, results, row

FOUND = results(
    [
        row("none", 5_000_000, 1.0, (0.80, 0.70, 0.90)),
        row("nf4", 1_500_000, 0.97, (0.75, 0.6, 0.8)),
        refused("gptq", "ModuleNotFoundError: No module named 'gptqmodel'"),
    ]
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """(work, wish) of every study; none is made."""
    found: list[Any] = []

    def quantize(work: Any, wish: Any) -> Any:
        found.append((work, wish))
        return FOUND

    def planned(work: Any, wish: Any) -> Any:
        found.append((work, wish))
        return [{"name": "nf4", "label": "NF4", "family": "4-bit", "status": "kept"}]

    monkeypatch.setattr(room, "quantize", quantize)
    monkeypatch.setattr(room, "planned", planned)
    return found


def pipe(*arguments: str) -> Result:
    return CliRunner().invoke(quant, ["-r", "demo", *arguments])


def test_help_is_one_short_sentence_with_examples() -> None:
    assert quant.help
    first = quant.help.partition("\n")[0]
    assert first.endswith(".") and len(first) <= 60
    assert "pipe quant --limit 50" in quant.help and "explain" in quant.commands


def test_by_rule_the_tuned_model_is_studied_in_every_row(asked: list[Any]) -> None:
    assert pipe().exit_code == 0
    ((work, wish),) = asked
    assert (wish.model, wish.methods, wish.limit, work.force) == ("tuned", (), None, False)


def test_options_reach_the_study(asked: list[Any]) -> None:
    arguments = ["--base", "--method", "nf4", "--method", "Q8_0", "--limit", "7", "--force"]
    assert pipe(*arguments, "--run", "other", "--set", "eval.batch_size=3").exit_code == 0
    ((work, wish),) = asked
    assert (wish.model, wish.methods, wish.limit) == ("base", ("nf4", "Q8_0"), 7)
    assert (work.run.name, work.force, work.recipe.eval.batch_size) == ("other", True, 3)


def test_the_table_has_every_row_and_says_what_was_not_run(asked: list[Any]) -> None:
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(quant, ["-r", "demo"])
    (nf4,) = (line for line in shown.stdout.splitlines() if line.startswith(" nf4 "))
    assert nf4.split() == [
        "nf4", "1.5", "MB", "1500.00", "4.5", "MB", "123", "1.25", "3.0e-03", "97.0%", "75.0%",
        "60.0-80.0",
    ]  # fmt: skip
    (gptq,) = (line for line in shown.stdout.splitlines() if line.startswith(" gptq"))
    assert gptq.split() == ["gptq", "not", "run"]
    assert "GPTQ, 4 bits is not run: ModuleNotFoundError: No module named" in shown.stdout
    assert "NF4 is the best choice." in shown.stdout
    assert Path("runs/demo/quant/quant.html").as_posix() in shown.stderr


def test_json_is_the_results_and_nothing_else(asked: list[Any]) -> None:
    assert json.loads(pipe("--json").stdout) == FOUND


def test_a_dry_run_says_which_rows_are_there(asked: list[Any]) -> None:
    assert pipe("--dry-run").stdout == "NF4: kept\n"
    assert json.loads(pipe("--dry-run", "--json").stdout)[0]["status"] == "kept"


def test_an_unknown_method_is_wrong_usage_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = pipe("--method", "nf5")
    assert isinstance(failed.exception, RecipeError) and failed.exception.exit_code == 2
    assert "no method nf5" in str(failed.exception)
    assert not (tmp_path / "runs").exists()


def test_explain_is_a_command_of_its_own(asked: list[Any]) -> None:
    shown = CliRunner().invoke(quant, ["explain", "--help"])
    assert shown.exit_code == 0 and "--tensor" in shown.stdout and not asked
