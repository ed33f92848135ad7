"""The metric that decides heads the page, also one of which less is better, and is tested."""

from pathlib import Path
from typing import Any

from pipeline.report import write_report, write_versus
from pipeline.report.deciding import comparison, comparisons, main_metric
from pipeline.report.gather import gather
from pipeline.report.log import log_text
from pipeline.report.summary import summary
from pipeline.run import Run
from tests.report.figures import compared, value
from tests.report.fixture import write_run
from tests.report.logged import rows, section

ASKED = ["eval.metrics=[r2,mae]"]


def off(middle: float) -> dict[str, float]:
    return {"value": middle, "low": middle - 2.5, "high": middle + 2.5}


def mae_change(one: str, other: str, before: float, after: float, p: float) -> dict[str, Any]:
    """As `pipe eval` tests answers that are all off alike: an interval of no width."""
    change = dict.fromkeys(("value", "low", "high"), after - before)
    percent = 100 * (after - before) / before
    made = compared("mae", one, other, after - before, p)
    return made | {"change": change, "percent": percent, "test": "sign-flip permutation"}


def priced(root: Path, before: float = 48.0, after: float = 4.0, **changes: Any) -> Run:
    """Every answer is off by as much as all are on average; the GGUFs by a little more."""
    errors = {"base": before, "adapter": after, "Q8_0": after + 0.5, "Q4_K_M": after + 1}
    pairs = (("base", "adapter"), ("adapter", "Q8_0"), ("adapter", "Q4_K_M"))
    tested = [
        mae_change(one, other, errors[one], errors[other], 1e-9 if before != after else 1.0)
        for one, other in pairs
    ]
    return write_run(
        root,
        overrides=ASKED,
        scored={engine: {"mae": off(each), "r2": value(0.5)} for engine, each in errors.items()},
        each={engine: {"mae": each} for engine, each in errors.items()},
        **{"tested": tested} | changes,
    )


def test_the_price_recipe_is_headed_by_its_error_not_by_accuracy(tmp_path: Path) -> None:
    run = priced(tmp_path / "demo")
    assert main_metric(gather(run)) == "mae"
    _, better, safe, _ = summary(gather(run))
    assert (better.headline, better.tone) == ("Yes: 48 → 4", "good")
    assert better.text[0] == (
        "MAE, less is better, on 40 questions that training never saw: −44. Without any effect, "
        "fewer than 1 in 1,000 such tests would differ at least this much (p < 0.001)."
    )
    assert "Merging and quantizing to Q8_0 costs: mae +0.5" in safe.text[1]
    page = write_report(run)[0].read_text(encoding="utf-8")
    assert "MAE by size" in page and "sign-flip permutation" in page and "−92%" not in page


def test_a_larger_error_is_worse_and_a_like_one_unclear(tmp_path: Path) -> None:
    worse, like = priced(tmp_path / "a", 4.0, 48.0), priced(tmp_path / "b", 4.0, 4.0)
    better = summary(gather(worse))[1]
    assert (better.headline, better.tone) == ("No, it got worse: 4 → 48", "bad")
    better = summary(gather(like))[1]
    assert better.headline == "No clear difference: 4 → 4"
    assert better.text[0].endswith("+0. The test finds no difference (p = 1).")


def test_the_tests_are_those_of_eval(tmp_path: Path) -> None:
    view = gather(priced(tmp_path / "demo"))
    made = [(e["from"], e["to"]) for e in comparisons(view, "test") if e["metric"] == "mae"]
    assert made == [("base", "adapter"), ("adapter", "Q8_0"), ("adapter", "Q4_K_M")]
    found = comparison(view, "mae", "base", "adapter")
    assert found["change"]["value"] == -44.0 and found["p_value"] < 0.001
    assert comparison(view, "exact_match", "base", "adapter")["change"]["value"] == 0.792
    assert comparison(view, "bleu", "base", "adapter") == {}


def test_an_eval_that_made_no_such_test_leaves_the_intervals(tmp_path: Path) -> None:
    run = priced(tmp_path / "demo", tested=[])
    better = summary(gather(run))[1]
    assert better.headline.endswith("48 → 4") and "95% intervals" in better.text[0]


def test_a_metric_that_was_not_measured_does_not_decide(tmp_path: Path) -> None:
    assert main_metric(gather(write_run(tmp_path / "a", overrides=ASKED))) == "exact_match"
    assert main_metric(gather(write_run(tmp_path / "b", without=["eval"]))) == ""


def test_the_log_tests_the_same_metric(tmp_path: Path) -> None:
    text, _ = log_text(priced(tmp_path / "demo"))
    found = rows(section(text, "Before and after"))
    assert found["MAE"][2:] == ["−44", "−91.7%", "p < 0.001, hardly chance"]
    assert "**Did it get better?** Yes: 48 → 4." in text


def test_of_two_runs_the_one_with_the_smaller_error_wins(tmp_path: Path) -> None:
    one, two = priced(tmp_path / "one", after=9.0), priced(tmp_path / "two", after=4.0)
    page = write_versus(one, two)[0].read_text(encoding="utf-8")
    assert '<p class="headline">two</p>' in page
    assert "On 40 questions that both answered: −5" in page
