"""Two runs compared: the same questions, the recipes' differences, the command line."""

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.evaluate.metrics import Metric, Statistics, ratio
from pipeline.evaluate.results import Scores
from pipeline.report import write_versus
from pipeline.report.gather import gather
from pipeline.report.paired import compare, paired_tests
from pipeline.report.versus import _tested
from pipeline.report.view import RunView
from pipeline.report.words import by_chance, odds
from tests.report.figures import gates
from tests.report.fixture import write_run


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
    found = compare([0.25] * 12, [0.75] * 11 + [0.5], samples=4)
    assert found.test == "sign-flip permutation"
    assert found.p_value < 0.01
    assert 0.4 < found.change["low"] <= found.change["high"] <= 0.5


MEANS = {"a": 2.0, "b": 1.5}


def _as_it_is(right: Any) -> Statistics:
    return right, 1


@pytest.mark.parametrize("samples", [1, 2])
def test_the_test_is_the_one_that_eval_makes(samples: int) -> None:
    random = Random(3)
    chances = {"a": 0.4, "b": 0.6}
    right = {name: [random.random() < p for _ in range(60)] for name, p in chances.items()}
    # what is measured of a reply is, here, nothing but whether it was right
    graded = Metric("exact_match", "higher", "reply", _as_it_is, ratio, is_share=True)
    made = Scores(right, [graded], samples, seed=0).comparisons([("a", "b")])[0]  # type: ignore[arg-type]
    shares = [np.reshape(each, (-1, samples)).mean(axis=1).tolist() for each in right.values()]
    found = compare(shares[0], shares[1], samples)
    assert (found.test, found.p_value) == (made["test"], pytest.approx(made["p_value"], rel=1e-3))
    assert found.change == pytest.approx(made["change"], abs=1e-6)


@pytest.mark.parametrize("samples", [1, 2])
def test_the_test_of_an_error_is_the_one_that_eval_makes(samples: int) -> None:
    random = Random(5)
    losses = {name: [random.gauss(mean, 1) for _ in range(60)] for name, mean in MEANS.items()}
    metric = Metric("cross_entropy", "lower", "reply", _as_it_is, ratio)
    made = Scores(losses, [metric], samples, seed=0).comparisons([("a", "b")])[0]  # type: ignore[arg-type]
    means = [np.reshape(each, (-1, samples)).mean(axis=1).tolist() for each in losses.values()]
    found = compare(means[0], means[1], samples, is_share=False)
    assert (found.test, found.p_value) == (made["test"], pytest.approx(made["p_value"], rel=1e-3))
    assert found.change == pytest.approx(made["change"], abs=1e-6)
    # whole numbers are no shares either: no interval of yes and no
    same = compare([3.0] * 20, [2.0] * 20, is_share=False)
    assert same.change == {"value": -1.0, "low": -1.0, "high": -1.0}


def gsm8k(root: Path, **facts: str) -> RunView:
    graded = {"task": "gsm8k", "engine": "adapter", "metrics": {"exact_match": 1}, "text": "4"}
    return gather(
        write_run(
            root,
            tasks={"gsm8k": {"items": 2, "engines": {"adapter": {}}}},
            asked={"gsm8k": {"dataset": "openai/gsm8k", **facts}},
            answers=[graded | {"id": f"q{number}"} for number in range(2)],
        )
    )


def test_another_tasks_questions_are_paired_where_both_read_the_same(tmp_path: Path) -> None:
    one, same = (gsm8k(tmp_path / name, revision="740312ad") for name in ("one", "same"))
    other, unknown = gsm8k(tmp_path / "other", revision="e53f048e"), gsm8k(tmp_path / "unknown")
    assert paired_tests(one, same, "gsm8k")["adapter"].questions == 2
    assert paired_tests(one, other, "gsm8k") == {}
    assert paired_tests(unknown, unknown, "gsm8k") == {}


def test_why_no_test_was_made_is_said_as_it_is() -> None:
    assert "Nothing shows that they were asked the same" in _tested("exact_match", None)
    assert "of all answers together" in _tested("perplexity", None)


def test_a_difference_is_none_only_where_it_is_zero() -> None:
    even = compare([1.0] * 11 + [0.0] * 12 + [1.0] * 7, [0.0] * 11 + [1.0] * 12 + [1.0] * 7)
    assert even.p_value == 1.0 and even.change["value"] > 0
    assert by_chance(even.p_value, even.change) == "Nothing tells it from chance (p = 1)."
    assert odds(even.p_value, even.change) == "nothing tells it from chance"
    zero = dict.fromkeys(("low", "value", "high"), 0.0)
    assert odds(1.0, zero) == "no difference" and "no difference" in by_chance(1.0, zero)
    assert "would differ at least this much" in by_chance(0.2, even.change)


def test_scores_of_earlier_work_win_nothing(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one", right={"adapter": 0.3}), write_run(tmp_path / "two")
    manifest = two.folder("export") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 3407', '"seed": 3408'))
    page = write_versus(one, two)[0].read_text(encoding="utf-8")
    assert '<p class="headline">two: measured on an earlier export</p>' in page


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
    assert err == "No gate has been checked. Run: pipe check -r demo --run other\n"


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
