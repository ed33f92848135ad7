"""The log's figures: scores before and after, losses by tenths, the quality of the data."""

import json
import re
from pathlib import Path

import pytest

from pipeline.report.log.sections import changed
from pipeline.report.words import number
from tests.report.figures import metrics
from tests.report.fixture import write_run
from tests.report.logged import rows, section, text_of


def test_figures_before_and_after_stand_with_intervals_points_and_percent(tmp_path: Path) -> None:
    found = rows(section(text_of(write_run(tmp_path / "demo")), "Before and after"))
    before, after, change, relative, chance = found["Accuracy"]
    assert (before, after) == ("4.8% (0.3% to 9.3%)", "84.0% (79.5% to 88.5%)")
    assert change == "+79.2 points (+74.2 to +84.2 points)"
    assert (relative, chance) == ("+1,650%", "p < 0.001, hardly chance")
    # nothing was well formed before: no percent of nothing
    assert found["Well formed"][3] == "–"
    assert found["Perplexity"][2:4] == ["−445", "−99.8%"]


def test_a_base_that_was_not_measured_leaves_nothing_to_compare(tmp_path: Path) -> None:
    text = text_of(write_run(tmp_path / "demo", engines=["adapter", "Q8_0"]))
    assert "No metric was measured on both." in section(text, "Before and after")


def test_every_task_is_told(tmp_path: Path) -> None:
    more = {"items": 1319, "engines": {e: metrics(e, 0.5) for e in ("base", "adapter")}}
    told = section(text_of(write_run(tmp_path / "demo", tasks={"gsm8k": more})), "Before and after")
    assert re.findall("^### (.*)$", told, re.MULTILINE) == [
        "test: 40 questions", "gsm8k: 1,319 questions",
    ]  # fmt: skip


def test_losses_stand_by_tenths_and_the_line_falls(tmp_path: Path) -> None:
    losses = [8.0 / 2**step for step in range(20)]
    told = section(text_of(write_run(tmp_path / "demo", losses=losses)), "Losses")
    assert "logarithm: █▇▆▆▅▄▃▃▂▁" in told
    found = rows(told)
    assert found["training"] == ["8", number(losses[-1])]
    assert found["validation: rows that only steer"] == ["–", "0.0311"]
    assert found["general rows, which the base could do before"] == ["2.1", "2.15"]
    assert found["1 to 10"] == ["6", "–"] and found["180 to 190"][1] == "0.0311"


@pytest.mark.parametrize("losses", [[3.0], [0.0, 0.0], [2.0, float("nan")], [1.0] * 7])
def test_few_and_odd_losses_are_told_too(tmp_path: Path, losses: list[float]) -> None:
    found = rows(section(text_of(write_run(tmp_path / "demo", losses=losses)), "Losses"))
    assert len([name for name in found if name[0].isdigit()]) == min(10, len(losses))
    assert (found["training"][1] == "not a number") == (losses[-1] != losses[-1])


def test_a_change_of_nothing_has_no_percent() -> None:
    assert changed("exact_match", 0.0, 0.5) == ("+50.0 points", "–")
    assert changed("cross_entropy", 2.0, 1.0) == ("−1", "−50%")
    assert changed("exact_match", None, 0.5) == ("–", "–")


def test_the_quality_score_is_what_its_formula_says(tmp_path: Path) -> None:
    rejects = {"too_long": 100, "refuted": 30, "near_duplicate": 20, "contaminated": 5}
    rejects |= {"duplicate_row": 10, "no_reasoning": 35}
    found = rows(section(text_of(write_run(tmp_path / "demo", rejects=rejects)), "Data"))
    assert found["records read"][0] == "2,600"
    assert found["too long for the context"] == ["100", "3.8%"]
    assert found["repeats"] == ["30", "1.2%"]
    assert found["asks what a test or benchmark asks"] == ["5", "0.2%"]
    assert found["dropped for another reason"] == ["35", "1.3%"]
    assert found["quality score"] == ["2,400", "96.0%"]  # 2,400 of 2,500 that fit


def test_rows_are_counted_by_how_they_are_learned(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    made = [
        {"reasoning": "x", "thinking": True, "reference": "1"},
        {"reasoning": "x", "thinking": False, "reference": None},
        {"reasoning": None, "thinking": False, "reference": "3"},
        {"reasoning": "x", "thinking": True, "reference": "4"},
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in made)
    (run.folder("data") / "train.jsonl").write_text(lines, encoding="utf-8")
    found = rows(section(text_of(run), "Data"))
    assert found["... with reasoning"] == ["2", "50.0%"]
    assert found["... answered directly"] == ["2", "50.0%"]
    known = "training rows with a known answer, which theirs does not contradict"
    assert found[known] == ["3", "75.0%"]
