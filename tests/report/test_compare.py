"""compare.html in a browser, and its table as Markdown."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from pipeline.report.compare import write_comparison
from pipeline.report.compare_words import markdown, optimal
from tests.report.browser import running_browser
from tests.report.fixture import write_run

GB = 1_000_000_000
HOSTILE = "</td><script>alert(1)</script>\x1b[2J | pipe"


def value(middle: float) -> dict[str, float]:
    return {"value": middle, "low": middle - 0.04, "high": middle + 0.04}


def row(label: str, **known: Any) -> dict[str, Any]:
    return {
        "label": label,
        "settings": {"train.method": label.partition("=")[2]},
        "run": f"runs/{label}",
        "status": "done",
        "reason": None,
        "method": label.partition("=")[2],
        "trainable_parameters": 393_216,
        "total_parameters": 2_328_320,
        "memory_bytes": 3 * GB,
        "seconds": 120.0,
        "tokens_per_second": 4_500.0,
        "steps": 180,
        "train_loss": 0.25,
        "eval_loss": 0.0311,
        "general_loss_before": 2.1,
        "general_loss_after": 2.15,
        "metric": "exact_match",
        "before": value(0.048),
        "after": value(0.8),
        "files": {},
        "memory_saving": 0.0,
        "speed_up": 1.0,
        "against_most_accurate": None,
    } | known


def results(*rows: dict[str, Any], **known: Any) -> dict[str, Any]:
    return {
        "schema": 2,
        "inputs": {},
        "recipe": "demo",
        "vary": {"train.method": ["full", "qlora", "lora-8bit"]},
        "stages": ["train", "eval"],
        "rule": "The best is the best.",
        "best": "method=qlora",
        "reference": "method=full",
        "device": "cpu",
        "task": "test",
        "questions": 250,
        "variants": list(rows),
    } | known


def refused(label: str, reason: str) -> dict[str, Any]:
    figures = ("method", "memory_bytes", "seconds", "after", "before", "trainable_parameters")
    return row(label, status="refused", reason=reason, **dict.fromkeys(figures))


FULL = row(
    "method=full",
    trainable_parameters=2_328_320,
    general_loss_after=3.4,
    after=value(0.7),
    against_most_accurate={
        "from": "method=qlora",
        "questions": 250,
        "change": value(-0.1),
        "p_value": 0.002,
        "test": "McNemar, exact",
    },
)
QLORA = row(
    "method=qlora", memory_bytes=1.5 * GB, seconds=60.0, memory_saving=0.5, speed_up=2.0,
    files={"Q8_0": {**value(0.79), "bytes": 2_600_000}},
)  # fmt: skip
REFUSED = refused("method=lora-8bit", f"method lora-8bit needs a GPU {HOSTILE}")
WHOLE = results(FULL, QLORA, REFUSED)


def error(middle: float) -> dict[str, float]:
    return {"value": middle, "low": middle - 0.5, "high": middle + 0.5}


def priced(label: str, after: float, **known: Any) -> dict[str, Any]:
    return row(label, metric="mae", before=error(48.0), after=error(after), **known)


TESTED = {
    "from": "r=16",
    "questions": 250,
    "change": {"value": 2.0, "low": 1.0, "high": 3.0},
    "p_value": 0.0002,
    "test": "sign-flip permutation",
}
PRICES = results(
    priced("r=8", 6.0, against_most_accurate=TESTED),
    priced("r=16", 4.0, files={"Q8_0": {**error(4.1), "bytes": 2_600_000}}),
    best="r=16",
    reference="r=8",
    vary={"train.lora.r": [8, 16]},
)


class Tab:
    def __init__(self, page: Page, pages: dict[str, Path]) -> None:
        self.page, self.pages = page, pages
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.errors.append(message.text))

    def show(self, name: str, width: int) -> None:
        self.requests.clear()
        self.errors.clear()
        self.page.set_viewport_size({"width": width, "height": 740})
        self.page.goto(self.pages[name].as_uri())


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    root = tmp_path_factory.mktemp("compare")
    written = {"whole": _written(root / "whole", WHOLE)}
    ranks = [row(f"r={2**n},learning_rate=0.0001,dropout=0.05,alpha=16") for n in range(10)]
    written["many"] = _written(root / "many", results(*ranks, best=None))
    written["prices"] = _written(root / "prices", PRICES)
    written["none"] = _written(root / "none", results(REFUSED, best=None, device=None))
    with running_browser() as browser:
        yield Tab(browser.new_page(), written)


def _written(folder: Path, found: dict[str, Any]) -> Path:
    for each in found["variants"]:
        if each["status"] == "done":
            stages = ("export", "serve", "check", "eval")
            write_run(folder / each["run"], without=stages, items=2, overrides=["name=demo"])
    return write_comparison(folder, found)


@pytest.mark.parametrize("name", ["whole", "many", "prices", "none"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_asks_for_nothing_and_holds_no_script(
    tab: Tab, name: str, width: int
) -> None:
    tab.show(name, width)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.requests == [tab.pages[name].as_uri()] and tab.errors == []
    assert tab.page.locator("script").count() == 0


def test_the_best_stands_on_top_with_its_gain_its_cost_and_what_was_forgotten(tab: Tab) -> None:
    tab.show("whole", 1200)
    best, gained, cost, forgot = tab.page.locator(".card").all_inner_texts()
    assert "method=qlora" in best and "Optimal configuration: train.method=qlora" in best
    assert "The best is the best." in best
    assert "Yes: 4.8% → 80.0%" in gained
    assert "1.50 GB" in cost and "50.0% of the memory of method=full saved" in cost
    assert "2.00× as fast" in cost
    assert "Most by method=full: 2.1 → 3.4" in forgot and "method=qlora: 2.1 → 2.15." in forgot


def test_each_variant_has_its_interval_its_bars_and_its_curve_in_one_colour(tab: Tab) -> None:
    tab.show("whole", 1200)
    scores = tab.page.locator("#scores table").first.locator("tbody tr").all_inner_texts()
    assert len(scores) == 2 and "−10.0 points against method=qlora" in scores[0]
    assert "p = 0.002, hardly chance" in scores[0] and "best" in scores[1]
    assert tab.page.locator("#scores table").first.locator("svg.interval").count() == 4
    assert tab.page.locator("#cost figure").first.locator("rect").count() == 2
    colours = """selector => [...new Set([...document.querySelectorAll(selector)]
      .map(each => getComputedStyle(each).color))]"""
    bars = tab.page.evaluate(colours, "#cost figure:first-child g")
    curves = tab.page.evaluate(colours, "#losses figure:first-child g:has(polyline)")
    assert len(bars) == 2 and bars == curves
    assert "Q8_0" in tab.page.inner_text("#scores") and "2.6 MB" in tab.page.inner_text("#scores")


def test_an_error_is_shown_in_its_own_unit_and_less_of_it_is_better(tab: Tab) -> None:
    tab.show("prices", 1200)
    best, gained, *_ = tab.page.locator(".card").all_inner_texts()
    assert "MAE 4 (3.5 to 4.5), eval loss" in best and "right" not in best
    assert "Yes: 48 → 4" in gained
    text = tab.page.inner_text("#scores")
    assert text.startswith("MAE") and "lower is better" in text and "from 0 to 48.5" in text.lower()
    assert "+2 against r=16" in text and "p < 0.001, hardly chance" in text
    assert "4.1" in text and "%" not in text.replace("95% intervals", "")
    dots = tab.page.locator("#scores table").first.locator("svg.interval circle")
    # both on one track from 0 to the largest: 6 of 48.5 stands near its left end
    assert float(dots.nth(1).get_attribute("cx") or 0) < 40
    assert float(dots.nth(0).get_attribute("cx") or 0) > 120


def test_what_is_left_out_is_shown_and_does_nothing(tab: Tab) -> None:
    tab.show("whole", 1200)
    text = tab.page.inner_text("#left")
    assert "refused" in text and "</td><script>alert(1)</script>␛[2J" in text


def test_ten_variants_have_eight_curves_and_the_page_says_so(tab: Tab) -> None:
    tab.show("many", 1200)
    assert "first 8 variants" in tab.page.inner_text("#losses")
    assert tab.page.locator("#losses figure").first.locator("polyline").count() == 8
    assert tab.page.locator("#cost figure").first.locator("rect").count() == 10
    legend = tab.page.locator("#losses figure").nth(1).locator(".legend span")
    colours = {legend.nth(n).evaluate("e => getComputedStyle(e).color") for n in range(8)}
    assert len(colours) == 8


def test_bars_are_as_long_as_their_figures_and_no_text_leaves_its_picture(tab: Tab) -> None:
    tab.show("whole", 1200)
    widths = (
        tab.page.locator("#cost figure")
        .first.locator("rect")
        .evaluate_all("all => all.map(each => each.getBBox().width)")
    )
    assert widths[1] / widths[0] == pytest.approx(0.5, abs=0.01)
    tab.show("many", 1200)
    outside = tab.page.evaluate("""() => [...document.querySelectorAll("#cost svg")].flatMap(svg =>
      [...svg.querySelectorAll("text")].filter(t =>
        t.getBBox().x + t.getBBox().width > svg.viewBox.baseVal.width).map(t => t.textContent))""")
    assert outside == []


def test_every_text_can_be_read(tab: Tab) -> None:
    from tests.report.test_browser import _CONTRAST

    tab.show("whole", 1200)
    for theme in ("light", "dark"):
        tab.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        found = tab.page.evaluate(_CONTRAST)
        assert len(found) > 80
        assert [each for each in found if each["ratio"] < 4.5] == []
    tab.page.emulate_media(color_scheme="light")


def test_the_markdown_is_one_table_with_the_best_below_it() -> None:
    lines = markdown(WHOLE).splitlines()
    assert lines[0] == "### LoRA and full fine-tuning of demo"
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4 and len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert table[3] == (
        "| method=qlora | 393,216 (16.9%) | 1.50 | 50.0% | 60 s | 2.00× | 0.25 | 0.0311 "
        "| 2.1 → 2.15 | 4.8% (0.8% to 8.8%) | 80.0% (76.0% to 84.0%) |"
    )
    assert lines[7].startswith("- method=lora-8bit refused: method lora-8bit needs a GPU")
    assert optimal(WHOLE) in lines
    assert optimal(WHOLE) == (
        "Optimal configuration: train.method=qlora: 80.0% (76.0% to 84.0%) right, eval loss "
        "0.0311, 1.50 GB, 60 s of training, 393,216 (16.9%) trainable parameters."
    )


def test_the_markdown_of_an_error_names_it() -> None:
    lines = markdown(PRICES).splitlines()
    assert lines[2].endswith("| MAE before | MAE after |")
    assert lines[5].endswith("| 48 (47.5 to 48.5) | 4 (3.5 to 4.5) |")
    assert "MAE on 250 questions with 95% intervals." in lines[-1]


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    pages = [_written(tmp_path / name / "compare", WHOLE).read_bytes() for name in ("one", "two")]
    assert pages[0] == pages[1]


def test_without_questions_the_page_has_no_accuracy(tmp_path: Path) -> None:
    rows = [row(f"r={n}", before=None, after=None) for n in (8, 16)]
    found = results(*rows, best="r=8", questions=None, vary={"train.lora.r": [8, 16]})
    page = _written(tmp_path / "compare", found).read_text()
    assert 'id="scores"' not in page and "Variants of demo: train.lora.r" in page
    assert "pipe compare --vary train.lora.r=8,16" in page
