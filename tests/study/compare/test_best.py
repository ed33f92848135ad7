"""The rule: not significantly worse, then lean, then fast, then accurate."""

from pathlib import Path
from typing import Any

import pytest

from tests.study.compare.support import GB, Figures, bench


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The results for r=8, r=16 and r=32 that measure these figures."""

    def compare(*figures: Figures, **how: Any) -> dict[str, Any]:
        known = dict(zip(("r_8", "r_16", "r_32"), figures, strict=True))
        made = bench(tmp_path / "runs" / "demo", monkeypatch, **known)
        return made.compare("lora.r=8,16,32", **how)

    return compare


def test_one_that_is_clearly_worse_is_not_best_however_lean(named: Any) -> None:
    lean = Figures(right=60, memory=GB, seconds=1)
    found = named(lean, Figures(right=90), Figures(right=88, memory=int(1.5 * GB)))
    assert found["best"] == "r=32"
    tests = {row["label"]: row["against_most_accurate"] for row in found["variants"]}
    assert tests["r=16"] is None
    assert tests["r=8"]["p_value"] < 0.001 and tests["r=8"]["change"]["value"] == -0.3
    assert tests["r=32"]["p_value"] > 0.05 and tests["r=32"]["questions"] == 100
    assert "the same 100 questions" in found["rule"] and "than r=16" in found["rule"]


def test_memory_within_a_twentieth_is_the_same_and_time_decides(named: Any) -> None:
    quick = Figures(memory=int(1.04 * GB), seconds=50)
    found = named(Figures(memory=GB), quick, Figures(memory=int(1.2 * GB), seconds=1))
    assert found["best"] == "r=16"


def test_where_neither_tells_them_apart_the_most_accurate_is_best(named: Any) -> None:
    near = Figures(right=82, memory=int(2.02 * GB), seconds=103)
    assert named(Figures(right=81), near, Figures(right=80))["best"] == "r=16"


def test_without_questions_the_lowest_loss_on_the_same_eval_rows_is_best(named: Any) -> None:
    figures = Figures(), Figures(eval_loss=0.4), Figures(eval_loss=0.6)
    found = named(*figures, stages=("train",))
    assert found["best"] == "r=16" and "loss on the eval rows" in found["rule"]
    assert all(row["after"] is None for row in found["variants"])


def test_answers_of_an_earlier_comparison_are_none_of_one_that_asks_nothing(named: Any) -> None:
    named(Figures(), Figures(), Figures())
    found = named(Figures(), Figures(), Figures(), stages=("train",))
    assert found["rule"] == "The lowest loss on the eval rows; no test question was asked."
    assert not any("eval" in name for name in found["inputs"])


def test_other_rows_have_other_losses_so_none_is_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(tmp_path / "runs" / "demo", monkeypatch)
    found = made.compare("no_thinking_share=0,0.1", stages=("train",))
    assert found["best"] is None and "No variant is named best" in found["rule"]


PRICES = ["eval.metrics=[mae,r2]"]


def test_where_numbers_are_asked_the_lowest_error_leads_and_signs_are_flipped(named: Any) -> None:
    lean = Figures(right=90, off=(9.0, 5.0), memory=GB)
    near = Figures(right=60, off=(4.1, 3.9), memory=int(1.5 * GB))
    found = named(lean, Figures(right=70, off=(3.0, 4.0)), near, overrides=PRICES)
    rows = {row["label"]: row for row in found["variants"]}
    assert {row["metric"] for row in rows.values()} == {"mae"}
    assert rows["r=16"]["after"]["value"] == 3.5 and rows["r=16"]["before"]["value"] == 48
    assert rows["r=16"]["against_most_accurate"] is None
    worse = rows["r=8"]["against_most_accurate"]
    assert (worse["test"], worse["from"]) == ("sign-flip permutation", "r=16")
    assert worse["change"]["value"] == 3.5 and worse["p_value"] < 0.001
    assert found["best"] == "r=16" and rows["r=32"]["against_most_accurate"]["p_value"] < 0.001
    assert "finds worse (p < 0.05) than r=16, which has the lowest MAE." in found["rule"]
    assert found["rule"].endswith("of these, that of the lowest MAE.")


def test_an_error_that_may_be_chance_does_not_keep_the_lean_one_from_being_best(
    named: Any,
) -> None:
    lean = Figures(off=(1.0, 9.0, 3.0), memory=GB)
    found = named(lean, Figures(off=(8.0, 1.0)), Figures(off=(9.0, 9.0)), overrides=PRICES)
    rows = {row["label"]: row for row in found["variants"]}
    assert rows["r=8"]["after"]["value"] < rows["r=16"]["after"]["value"]  # r=8 leads
    assert rows["r=16"]["against_most_accurate"]["p_value"] > 0.05
    assert found["best"] == "r=8" and "than r=8" in found["rule"]


def test_a_metric_of_all_answers_together_decides_nothing(named: Any) -> None:
    figures = Figures(right=80), Figures(right=90), Figures(right=70)
    found = named(*figures, overrides=["eval.metrics=[r2]"])
    assert {row["metric"] for row in found["variants"]} == {"exact_match"}


def test_where_the_metric_was_not_measured_for_each_the_loss_decides_and_this_is_said(
    named: Any,
) -> None:
    found = named(Figures(off=()), Figures(eval_loss=0.4), Figures(), overrides=PRICES)
    assert found["best"] == "r=16"
    assert found["rule"] == "The lowest loss on the eval rows; MAE was not measured for each."
