"""The page as a person sees it, in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page

from pipeline.report import write_report, write_versus
from tests.report.browser import running_browser
from tests.report.fixture import HOSTILE, write_run

_CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const known = new Map();
  const rgba = color => {
    if (!known.has(color)) known.set(color, drawn(color));
    return known.get(color);
  };
  const drawn = color => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const found = rgba(getComputedStyle(node).backgroundColor);
      if (found[3] > 250) return found;
    }
    return [255, 255, 255, 255];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const own = node => [...node.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll("*")]
    .filter(node => own(node) && node.tagName !== "title" && node.getClientRects().length)
    .map(node => {
      const style = getComputedStyle(node);
      const color = node instanceof SVGElement ? style.fill : style.color;
      const pair = [light(rgba(color)), light(behind(node))].sort((a, b) => b - a);
      return {text: node.textContent.slice(0, 40), ratio: (pair[0] + .05) / (pair[1] + .05)};
    });
}"""
"""Every visible text's contrast with what is behind it, as WCAG 2 defines it."""


class Tab:
    """The one tab of these tests, with what its page asked for and complained of."""

    def __init__(self, page: Page, pages: dict[str, Path]) -> None:
        self.page = page
        self.pages = pages
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def show(self, name: str, width: int = 1280) -> None:
        """Open the page anew, on a light screen."""
        self.requests.clear()
        self.errors.clear()
        self.page.set_viewport_size({"width": width, "height": 740})
        self.page.emulate_media(media="screen", color_scheme="light")
        self.page.goto(self.pages[name].as_uri())

    def unfold(self) -> None:
        self.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    runs = tmp_path_factory.mktemp("runs")
    whole = write_run(runs / "demo")
    other = write_run(runs / "demo-r16", overrides=["train.lora.r=16"], right={"adapter": 0.7})
    bare = write_run(runs / "bare", without=("serve", "check", "eval"))
    hostile = write_run(runs / "hostile", answer=HOSTILE + "x" * 20_000, items=10)
    return {
        "whole": write_report(whole, "-r demo")[0],
        "bare": write_report(bare)[0],
        "hostile": write_report(hostile)[0],
        "versus": write_versus(whole, other)[0],
    }


@pytest.fixture(scope="module")
def tab(pages: dict[str, Path]) -> Iterator[Tab]:
    """Shared: to start a browser, or a context in it, takes longer than a test."""
    with running_browser() as browser:
        yield Tab(browser.new_page(), pages)


def test_the_summary_answers_its_four_questions(tab: Tab) -> None:
    tab.show("whole")
    trained, better, safe, run = tab.page.locator(".card").all_inner_texts()
    assert "2,362 training rows of open-r1/OpenR1-Math-220k" in trained
    assert "QLoRA, r = 32" in trained and "180 steps" in trained and "a CPU" in trained
    assert "4.8% → 84.0%" in better and "0.0% → 99.6%" in better
    assert "+74.2 to +84.2 points" in better and "fewer than 1 in 1,000" in better
    assert "No: 1 gate failed" in safe and "Failed: context length" in safe
    assert "ollama run my-model" in run and "pipe chat -r demo" in run
    assert tab.errors == []


@pytest.mark.parametrize("name", ["whole", "bare", "hostile", "versus"])
def test_a_page_asks_for_nothing_and_fits_a_phone(tab: Tab, name: str) -> None:
    tab.show(name, width=360)
    tab.unfold()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.requests == [tab.pages[name].as_uri()]
    assert tab.errors == []
    assert tab.page.locator("script").count() == 0


def test_no_column_is_cut_off_on_a_small_laptop(tab: Tab) -> None:
    tab.show("whole", width=1000)
    cut = tab.page.evaluate("""() => [...document.querySelectorAll(".scroll")]
      .filter(box => box.scrollWidth > box.clientWidth).map(box => box.innerText)""")
    assert cut == [] and "Memory" in tab.text("#scores")


@pytest.mark.parametrize("name", ["whole", "versus"])
def test_every_text_can_be_read_in_both_themes(tab: Tab, name: str) -> None:
    backgrounds = {}
    tab.show(name)
    tab.unfold()
    themes: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")
    for theme in themes:
        tab.page.emulate_media(color_scheme=theme)
        backgrounds[theme] = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        found = tab.page.evaluate(_CONTRAST)
        assert len(found) > 100
        assert [each for each in found if each["ratio"] < 4.5] == []
    assert backgrounds["light"] != backgrounds["dark"]


def test_thinking_is_folded_until_it_is_asked_for(tab: Tab) -> None:
    tab.show("whole")
    fold = tab.page.locator(".reply details").first
    assert not fold.locator("pre").is_visible()
    fold.locator("summary").click()
    assert "Dan sells 5: 92-5=87" in fold.locator("pre").inner_text()


def test_no_name_in_a_chart_covers_another(tab: Tab) -> None:
    tab.show("whole")
    overlaps = tab.page.evaluate("""() => [...document.querySelectorAll("svg")].flatMap(svg => {
      const boxes = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBBox()]);
      return boxes.flatMap(([one, a], i) => boxes.slice(i + 1).filter(([_, b]) =>
        a.x < b.x + b.width - 1 && b.x < a.x + a.width - 1 &&
        a.y < b.y + b.height - 2 && b.y < a.y + a.height - 2).map(([two]) => [one, two]));
    })""")
    assert overlaps == []
    assert tab.page.locator("figure .label").count() == 4


def test_hostile_answers_are_shown_and_do_nothing(tab: Tab) -> None:
    tab.show("hostile")
    shown = tab.page.locator(".reply pre").first.inner_text()
    assert shown.startswith('</pre><script>fetch("http://evil.example")</script>␛[2J[U+202E]gnol␀')
    assert tab.page.locator("img").count() == 0
    assert "more characters are in eval/answers.jsonl" in tab.text(".reply")
    assert tab.pages["hostile"].stat().st_size < 400_000


def test_a_printed_page_shows_what_was_folded(tab: Tab) -> None:
    tab.show("whole")
    tab.page.emulate_media(media="print", color_scheme="dark")
    assert tab.page.locator(".reply details pre").first.is_visible()
    assert tab.page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 39)"


def test_two_runs_stand_side_by_side(tab: Tab) -> None:
    tab.show("versus")
    assert "demo" in tab.text(".headline") and "−15.0 points" in tab.text(".card")
    assert tab.page.locator("#recipe tbody tr").all_inner_texts() == ["train.lora.r\t32\t16"]
    assert tab.page.locator("figure").first.locator("polyline").count() == 2
    assert "demo-r16" in tab.text("figure .legend")
