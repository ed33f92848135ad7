"""Two runs compared: the same questions, the recipes' differences, the command line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.report import write_versus
from pipeline.report.gather import gather
from pipeline.report.paired import compare, paired_tests
from tests.report.fixture import gates, write_run


@pytest.mark.parametrize(
    ("won", "lost", "p_value"),
    # exact McNemar, the two-sided binomial: statsmodels.stats.contingency_tables.mcnemar
    [(6, 0, 0.03125), (0, 6, 0.03125), (8, 2, 0.109375), (3, 3, 1.0), (0, 0, 1.0)],
)
def test_right_and_wrong_are_tested_by_mcnemar(won: int, lost: int, p_value: float) -> None:
    first = [0.0] * won + [1.0] * lost + [1.0] * 5
    second = [1.0] * won + [0.0] * lost + [1.0] * 5
    found = compare(first, second)
    assert found.test == "McNemar, exact"
    assert found.p_value == pytest.approx(p_value)
    assert found.change["value"] == pytest.approx((won - lost) / (won + lost + 5))
    assert found.change["low"] < found.change["value"] < found.change["high"]
    assert compare(first, second) == found


def test_means_of_samples_are_tested_by_turning_signs() -> None:
    found = compare([0.25] * 12, [0.75] * 11 + [0.5])
    assert found.test == "sign-flip permutation"
    assert found.p_value < 0.01
    assert 0.4 < found.change["low"] <= found.change["high"] <= 0.5


def test_only_questions_that_both_answered_are_paired(tmp_path: Path) -> None:
    one = gather(write_run(tmp_path / "one", items=40))
    two = gather(write_run(tmp_path / "two", items=25, right={"adapter": 0.5}))
    tests = paired_tests(one, two, "test")
    assert tests["adapter"].questions == 25
    assert tests["adapter"].change["value"] < -0.4
    assert tests["base"].change["value"] == 0.0


def test_equal_ids_of_other_questions_are_not_paired(tmp_path: Path) -> None:
    one, two = (write_run(tmp_path / name, items=4) for name in ("one", "two"))
    rows = two.folder("data") / "test.jsonl"
    rows.write_text(rows.read_text().replace("Dan owns", "Eva owns"))
    assert paired_tests(gather(one), gather(two), "test") == {}


def test_the_page_lies_beside_the_first_run_and_says_what_differs(tmp_path: Path) -> None:
    one = write_run(tmp_path / "demo", gates=gates(["passed"] * 6))
    two = write_run(tmp_path / "demo-r16", overrides=["train.lora.r=16"], right={"adapter": 0.5})
    path, gaps = write_versus(one, two)
    assert path == tmp_path / "report-demo-vs-demo-r16.html" and gaps == []
    page = path.read_text(encoding="utf-8")
    assert "train.lora.r" in page and "train.lora.alpha" not in page
    assert "✗ failed" in page and "McNemar, exact" in page
    assert path.read_bytes() == write_versus(one, two)[0].read_bytes()


def test_two_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    one, two = (write_run(tmp_path / where / "demo") for where in ("old", "new"))
    page = write_versus(one, two)[0].read_text(encoding="utf-8")
    assert "old/demo" in page and "new/demo" in page and str(tmp_path) not in page


def test_a_run_without_scores_can_be_compared(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one")
    two = write_run(tmp_path / "two", without=("export", "serve", "check", "eval"))
    path, gaps = write_versus(one, two)
    assert "No task was measured in both" in path.read_text(encoding="utf-8")
    assert [gap.command.split()[1] for gap in gaps] == ["export", "register", "check", "eval"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPE_RECIPE", raising=False)
    write_run(Path("runs/demo"))
    write_run(Path("runs/other"), without=("check",))
    return tmp_path


def pipe(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["report", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_report_prints_the_path_and_names_the_gaps(here: Path) -> None:
    assert pipe("-r", "demo") == (0, "runs/demo/report.html\n", "")
    code, out, err = pipe("-r", "demo", "--run", "other", "--json")
    assert code == 0 and json.loads(out) == {"report": "runs/other/report.html"}
    assert err == "No gate has been checked. pipe check -r demo --run other\n"


def test_runs_are_named_or_given_by_their_paths(here: Path) -> None:
    assert pipe("other")[:2] == (0, "runs/other/report.html\n")
    assert pipe("demo", str(here / "runs/other"))[:2] == (0, "runs/report-demo-vs-other.html\n")


def test_a_run_that_is_not_there_is_told_with_those_that_are(here: Path) -> None:
    code, out, err = pipe("demo", "dmeo")
    assert (code, out) == (1, "")
    assert "There is no run dmeo" in err and "There are: demo, other." in err


@pytest.mark.parametrize("arguments", [("a", "b", "c"), ("demo", "-r", "demo")])
def test_naming_too_much_is_wrong_usage(here: Path, arguments: tuple[str, ...]) -> None:
    assert pipe(*arguments)[0] == 2


def test_open_asks_the_browser_for_the_page(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: not opened.append(url))
    assert pipe("demo", "--open")[0] == 0
    assert opened == [(here / "runs/demo/report.html").as_uri()]
