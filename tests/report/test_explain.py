"""The page and the picture of a row quantized by hand; plots and bars of parts."""

from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from pipeline.base import base_at
from pipeline.errors import PipeError
from pipeline.report.explain import explained_charts, write_explained
from pipeline.report.figure import Axes, Drawn, Part, plot, sheet, stacked
from pipeline.report.words import number
from pipeline.study.explain.subject import choose
from pipeline.study.explain.walk import explained

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def found():
    tiny = base_at(Path(__file__).parents[2] / "data" / "tiny-llama")
    return explained(choose(tiny, None, 0), 64)


@pytest.mark.parametrize("name", ["row.html", "row.svg"])
def test_equal_data_gives_equal_bytes(found, tmp_path, name):
    first, again = (
        write_explained(tmp_path / folder / name, found).read_bytes() for folder in ("a", "b")
    )
    assert first == again


def test_the_page_shows_every_method_and_no_script(found, tmp_path):
    page = write_explained(tmp_path / "row.html", found).read_text()
    assert all(f"<summary>{each['label']}</summary>" in page for each in found["methods"])
    assert all(f"GGUF {each['type']}" in page for each in found["gguf"])
    assert "<script" not in page and "default-src 'none'" in page
    assert page.count("<figure>") == 4


def test_a_tensor_with_a_hostile_name_is_text(found, tmp_path):
    page = write_explained(tmp_path / "row.html", found | {"tensor": "<b>\x1b[2J"}).read_text()
    assert "<b>\x1b" not in page and "&lt;b&gt;" in page


def test_the_picture_is_one_svg_that_needs_no_page(found, tmp_path):
    picture = fromstring(write_explained(tmp_path / "row.svg", found).read_text())
    assert picture.tag == f"{SVG}svg"
    assert len(picture.findall(f"{SVG}svg")) == 4
    style = picture.find(f"{SVG}style").text
    used = {part for each in picture.iter() for part in each.get("class", "").split()}
    drawn = used - {"spot", "faint"}
    assert all(f".{name} " in style or f".{name}," in style for name in drawn), drawn


def test_a_row_without_super_blocks_and_an_error_of_nothing_are_drawn(found):
    bare = found | {
        "methods": [each | {"relative_error": 0.0} for each in found["methods"][:-1]],
        "gguf": [each | {"reason": "50 columns do not fill"} for each in found["gguf"]],
    }
    assert len(explained_charts(bare)) == 4


def test_a_page_that_cannot_be_written_says_why(found, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PipeError, match="could not be written"):
        write_explained(tmp_path / "file" / "row.html", found)


def test_bars_of_parts_are_as_long_as_their_sum():
    rows = [("one", [Part("a", 3.0, 1), Part("b", 1.0, 2)]), ("two", [Part("a", 2.0, 1)])]
    svg = fromstring(str(stacked("Bits", rows, number, "bits").svg))
    widths = [float(each.get("width")) for each in svg.iter("rect")]
    assert widths[0] + widths[1] == pytest.approx(2 * widths[2], abs=0.2)
    assert widths[0] == pytest.approx(3 * widths[1], abs=0.3)


def test_a_plot_says_in_words_what_it_shows_and_stays_inside():
    series = [Drawn("loss", [(1, 0.5), (10, 0.1)]), Drawn("best", [(5, 0.2)], 3, "dots", ["here"])]
    chart = plot("Loss", series, Axes(("step", ""), (number, number)))
    svg = fromstring(str(chart.svg))
    assert (
        svg.get("aria-label")
        == "Loss: loss from 0.5 at 1 to 0.1 at 10; best from 0.2 at 5 to 0.2 at 5"
    )
    assert chart.legend == ((2, "loss"), (3, "best"))
    assert "here" in [each.text for each in svg.iter("text")]
    spots = [float(each.get("cx")) for each in svg.iter("circle")]
    assert all(54 <= at <= 348 for at in spots)


def test_a_sheet_is_as_high_as_its_rows():
    chart = plot(
        "Loss", [Drawn("loss", [(1, 0.5), (2, 0.1)])], Axes(("step", ""), (number, number))
    )
    one, three = (fromstring(sheet([chart] * count)) for count in (1, 3))
    heights = [float(each.get("viewBox").split()[3]) for each in (one, three)]
    assert heights[1] - 14 == 2 * (heights[0] - 14)
