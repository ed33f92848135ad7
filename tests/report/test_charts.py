"""Names that do not cover one another, curves that stay small, figures in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale
from pipeline.report.charts import MOST_POINTS, Point, Series, curves, lengths_chart, points_chart
from pipeline.report.histogram import Bins
from pipeline.report.labels import Box, place
from pipeline.report.words import chance, duration, metric, number, share, size

across = st.floats(LEFT, WIDTH - RIGHT)
down = st.floats(TOP, HEIGHT - BOTTOM)
names = st.sampled_from(["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16", "BF16"])


@given(st.lists(st.tuples(across, down, names), max_size=12))
def test_names_cover_neither_one_another_nor_a_point(
    anchors: list[tuple[float, float, str]],
) -> None:
    points = [Box(x - 5, y - 5, 10, 10) for x, y, _ in anchors]
    boxes = place(anchors, points)
    found = [box for box in boxes if box]
    assert len(boxes) == len(anchors)
    assert not any(one.meets(other) for i, one in enumerate(found) for other in found[i + 1 :])
    assert not any(box.meets(point) for box in found for point in points)
    assert all(box.x >= LEFT and box.x + box.width <= WIDTH for box in found)


def test_twelve_points_in_one_place_all_get_their_names() -> None:
    boxes = place([(200.0, 100.0, "Q4_K_M")] * 12, [Box(195, 60, 10, 80)])
    assert all(boxes)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_inside(low: float, span: float) -> None:
    scale = Scale(low, low + span, 0, 300)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 7
    slack = 1e-6 * span + 1e-9 * abs(low)
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)


def test_logarithmic_ticks_are_powers_of_ten() -> None:
    assert Scale(0.03, 6.1, 0, 100, log=True).ticks() == [0.1, 1.0]
    assert Scale(2.0, 3.0, 0, 100, log=True).ticks() == [2.0, 3.0]


def test_a_long_curve_is_drawn_as_means() -> None:
    chart = curves("loss", [Series("loss", [(step, step % 2) for step in range(1, 10_001)])])
    assert chart is not None
    assert chart.svg.count("<title>") <= MOST_POINTS
    assert "loss, step 10000: 0.5" in chart.svg


def test_a_steep_curve_gets_a_logarithmic_axis_and_says_so() -> None:
    steep = curves("loss", [Series("loss", [(1, 6.1), (2, 0.03)])])
    flat = curves("loss", [Series("loss", [(1, 2.0), (2, 1.0)])])
    assert steep is not None and steep.note == "logarithmic"
    assert flat is not None and flat.note == ""


def test_a_file_without_a_value_has_no_point() -> None:
    known = {"value": 0.8, "low": 0.7, "high": 0.9}
    points = [Point("Q8_0", 2e9, known), Point("Q4_K_M", 1e9, {"value": None})]
    chart = points_chart("Accuracy by size", points, ("file size", "Accuracy"), (size, share))
    assert chart is not None
    assert "Q8_0: 2 GB, 80.0% (70.0% to 90.0%)" in chart.svg and "Q4_K_M" not in chart.svg
    assert points_chart("none", points[1:], ("", ""), (size, share)) is None


def test_lengths_are_drawn_with_the_limit() -> None:
    chart = lengths_chart(Bins((0, 64, 128, 256, 512), (3, 40, 0, 2, 1), "all"), 256)
    assert chart is not None
    assert "64 to 128 tokens: 40 rows" in chart.svg and "limit 256" in chart.svg
    assert "512 tokens or more: 1 rows" in chart.svg
    assert lengths_chart(Bins((0, 64), (0, 0), "all"), None) is None


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (size(2_079_520), "2.08 MB"),
        (size(730), "730 bytes"),
        (duration(44.43), "44.4 s"),
        (duration(7_320), "2 h 02 min"),
        (number(0.0316076), "0.0316"),
        (number(125_245), "125,245"),
        (chance(1e-40), "fewer than 1 in 1,000"),
        (chance(0.0042), "about 4 in 1,000"),
        (chance(0.031), "about 3 in 100"),
        (metric("exact_match").change(-0.008), "−0.8 points"),
        (metric("exact_match").change(-0.0001), "+0.0 points"),
        (metric("my_own_score").label, "My own score"),
        (metric("exact_match").shown({"value": None}), "–"),
        (metric("exact_match").between({"value": 0.5}), ""),
    ],
)
def test_figures_are_said_as_a_person_reads_them(said: str, wanted: str) -> None:
    assert said == wanted
