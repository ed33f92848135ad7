"""What the page says of the training: curves of all that was measured, and replies on the way."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import write_report, write_versus
from pipeline.report.charts import Chart
from pipeline.report.gather import gather
from pipeline.report.training import aloud, forgetting, training_charts
from pipeline.report.view import RunView
from tests.report.fixture import HOSTILE, write_run


def viewed(folder: Path, **changes: Any) -> RunView:
    return gather(write_run(folder, without=("serve", "check", "eval"), **changes))


def charts(folder: Path, **changes: Any) -> dict[str, Chart]:
    return {each.title: each for each in training_charts([("loss", viewed(folder, **changes))])}


def test_each_figure_has_its_curve_with_where_it_ends(tmp_path: Path) -> None:
    found = charts(tmp_path / "demo")
    assert list(found) == ["loss", "learning rate", "gradient norm", "tokens a second"]
    assert "eval loss, step 60: 0.4" in found["loss"].svg
    assert "loss on general rows, step 0: 2.1" in found["loss"].svg
    assert "tokens a second, step 180: 5,180" in found["tokens a second"].svg


def test_lines_of_evaluations_are_no_steps(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", without=("serve", "check", "eval"))
    view = gather(run)
    assert all("loss" in line for line in view.steps) and view.steps[-1]["step"] == 180
    assert "not a number" not in write_report(run)[0].read_text(encoding="utf-8")


def test_speed_is_all_tokens_by_all_seconds(tmp_path: Path) -> None:
    speeds = [
        {"step": 1, "seconds": 9.0, "tokens_per_second": 1000.0, "mfu": 0.1, "memory_bytes": 2e9},
        {"step": 2, "seconds": 1.0, "tokens_per_second": 11000.0, "mfu": 0.6, "memory_bytes": 1e9},
    ]
    note = charts(tmp_path / "demo", speeds=speeds)["tokens a second"].note
    assert note == "2,000 on average, MFU 15.0%, memory 2 GB"


def test_a_device_whose_peak_is_not_known_has_no_mfu(tmp_path: Path) -> None:
    speeds = [{"step": 1, "seconds": 1.0, "tokens_per_second": 500.0, "mfu": None}]
    note = charts(tmp_path / "demo", speeds=speeds)["tokens a second"].note
    assert note == "500 on average"


@pytest.mark.parametrize(
    "changes",
    [
        {"speeds": []},
        {"measured": [], "general": {}},
        {"aloud": []},
        {"speeds": [{"step": 1, "seconds": None, "tokens_per_second": float("nan")}]},
        {"losses": [], "measured": [], "speeds": [], "aloud": []},
        {"grad_norm": None},
    ],
    ids=str,
)
def test_the_section_stands_on_little(tmp_path: Path, changes: dict[str, Any]) -> None:
    run = write_run(tmp_path / "demo", without=("serve", "check", "eval"), **changes)
    page = write_report(run)[0].read_text(encoding="utf-8")
    assert 'id="training"' in page and "None" not in page


def test_the_loss_at_the_end_stands_in_where_none_was_taken_on_the_way(tmp_path: Path) -> None:
    assert "eval loss, step 180: 0.0311" in charts(tmp_path / "demo", measured=[])["loss"].svg


def test_what_was_forgotten_is_said(tmp_path: Path) -> None:
    assert "2.1 before, 2.15 after" in forgetting(viewed(tmp_path / "one"))
    assert forgetting(viewed(tmp_path / "two", general={})) == ""
    general = {"general_loss_before": 2.0, "general_loss_after": None}
    assert forgetting(viewed(tmp_path / "three", general=general)) == ""


def test_the_first_and_the_last_reply_to_a_question_are_shown(tmp_path: Path) -> None:
    first, second = aloud(viewed(tmp_path / "demo"))
    assert (first.question, second.question) == ("How many are 2?", "How many are 3?")
    steps = [step for step, _ in first.replies]
    assert len(steps) == 6 and (steps[0], steps[-1]) == (20, 180) and steps == sorted(set(steps))
    assert first.left_out == 3


def test_a_long_or_hostile_reply_is_cut_and_is_text(tmp_path: Path) -> None:
    written = HOSTILE.replace("\ud800", "")
    lines = [{"step": 5, "question": written, "reply": written + "x" * 9000}]
    run = write_run(tmp_path / "demo", without=("serve", "check", "eval"), aloud=lines)
    page = write_report(run)[0].read_text(encoding="utf-8")
    assert "<script" not in page and "\x1b" not in page and "x" * 5000 not in page
    assert "&lt;script&gt;" in page and "x ..." in page


def test_two_runs_have_one_curve_each(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name / name) for name in ("one", "two")]
    path, _ = write_versus(*runs)
    page = path.read_text(encoding="utf-8")
    labels = re.findall(r'aria-label="(tokens a second by step[^"]*)"', page)
    assert len(labels) == 1 and "one 5,001 at 1" in labels[0] and "two 5,001 at 1" in labels[0]
    assert "last loss" in page and "not a number" not in page
