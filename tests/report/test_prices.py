"""The picture of numbers said against true ones: who is a hit, and that nothing hides."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import write_report
from pipeline.report.gather import gather
from pipeline.report.prices import kind_of, scatters
from pipeline.run import Run
from tests.report.figures import value
from tests.report.fixture import write_run

FIGURES = {"mae": {"value": 4.25, "low": 3.9, "high": 4.6}, "r2": value(0.9)}


def priced(root: Path, scores: dict[str, Any] = FIGURES, **changes: Any) -> Run:
    return write_run(root, scores=scores, **changes)


@pytest.mark.parametrize(
    ("said", "true", "relative", "kind"),
    [
        (100, 139, False, "hit"),
        (100, 139, True, "near"),
        (100, 145, False, "near"),
        (10, 90, False, "miss"),
        (10, 89, False, "near"),
        (500, 610, False, "hit"),
        (500, 700, False, "near"),
        (80, 100, True, "near"),
        (61, 100, True, "near"),
        (60, 100, True, "miss"),
        (0, 0, True, "hit"),
        (1, 0, True, "miss"),
    ],
)
def test_a_number_is_a_hit_near_or_missed(
    said: float, true: float, relative: bool, kind: str
) -> None:
    assert kind_of(said, true, relative=relative) == kind


def test_a_run_without_number_metrics_has_no_picture(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    assert scatters(gather(run)) == {}
    page = write_report(run)[0].read_text(encoding="utf-8")
    assert "against the true ones" not in page


def test_base_and_tuned_are_drawn_with_their_figures(tmp_path: Path) -> None:
    run = priced(tmp_path / "demo")
    base, tuned = scatters(gather(run))["test"]
    assert (base.engine, tuned.engine) == ("base", "adapter")
    assert base.figures == (("MAE", "4.25"), ("R²", "0.9"))
    page = write_report(run)[0].read_text(encoding="utf-8")
    assert page.count("said against true") == 2
    assert "MAE 4.25" in page


def test_every_answer_is_a_point_and_is_counted_once(tmp_path: Path) -> None:
    (_, tuned) = scatters(gather(priced(tmp_path / "demo", samples=2)))["test"]
    counts = [int(text.split()[0]) for _, text in tuned.legend]
    assert sum(counts) == 40
    assert len(re.findall("<title>", tuned.svg)) == 40
    # 34 of 40 are right to the number, as the fixture has it
    assert counts[0] >= 33


def test_each_kind_has_a_shape_of_its_own(tmp_path: Path) -> None:
    (base, _) = scatters(gather(priced(tmp_path / "demo")))["test"]
    shapes = {
        kind: set(re.findall(rf'class="spot {kind}"><(\w+)', base.svg))
        for kind in ("hit", "near", "miss")
    }
    shapes = {kind: found for kind, found in shapes.items() if found}
    drawn = {"hit": {"circle"}, "near": {"polygon"}, "miss": {"line"}}
    assert shapes and all(found == drawn[kind] for kind, found in shapes.items())
    marks = [re.search(r"<g class=\"\w+\"><(\w+)", mark) for mark, _ in base.legend]
    assert [mark and mark[1] for mark in marks] == ["circle", "polygon", "line"]


def test_a_wild_number_is_drawn_at_the_edge_and_said(tmp_path: Path) -> None:
    (base, _) = scatters(gather(priced(tmp_path / "demo", answer="It is 999999.")))["test"]
    assert base.note == "40 answers above the picture, drawn at its edge"
    assert "999,999 said" in base.svg
    places = [float(y) for y in re.findall(r'y1="([-\d.]+)"', base.svg)]
    assert min(places) >= 0


def test_a_hostile_answer_stays_text(tmp_path: Path) -> None:
    run = priced(tmp_path / "demo", answer="<script>alert(1)</script> 7")
    page = write_report(run)[0].read_text(encoding="utf-8")
    assert "<script>" not in page
