"""The page in a real browser, as a user has it."""

import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect

from pipeline.engines.talk import Piece
from pipeline.errors import PipeError
from tests.report.browser import running_browser
from tests.support.scripted import Scripted, ending, reply
from tests.web.test_app import page, served

HOSTILE = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script> & done"


@pytest.fixture(scope="module")
def browser():
    with running_browser() as opened:
        yield opened


@pytest.fixture
def sides() -> dict[str, Scripted]:
    return {"base": Scripted(reply("", "Five")), "tuned": Scripted(reply("two and two", "Four"))}


@pytest.fixture
def tab(browser, sides) -> Iterator[Tab]:
    """The page; at the end nothing went wrong in it, and it asked its own server alone."""
    with served(page(**sides)) as url:
        context = browser.new_context(viewport={"width": 1000, "height": 700})
        tab, wrong, asked = context.new_page(), [], []
        tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(url)
        expect(tab.locator("#models")).to_contain_text("scripted")
        yield tab
        context.close()
    assert not wrong
    assert asked and all(each.startswith((f"{url}/", "data:")) for each in asked)


def ask(tab: Tab, question: str) -> None:
    tab.fill("#question", question)
    tab.press("#question", "Enter")


def test_a_question_goes_to_both_and_thinking_is_folded(tab, sides):
    ask(tab, "2 + 2?")
    base, tuned = tab.locator(".side.base"), tab.locator(".side.tuned")
    expect(base.locator(".answer")).to_have_text("Five")
    expect(tuned.locator(".answer")).to_have_text("Four")
    expect(tuned.locator(".foot")).to_contain_text("6.0 tokens/s")
    expect(base.locator("details")).to_be_hidden()
    expect(tuned.locator("summary")).to_contain_text("3 tokens")
    expect(tuned.get_by_text("two and two")).to_be_hidden()
    tuned.locator("summary").click()
    expect(tuned.get_by_text("two and two")).to_be_visible()


def test_each_side_goes_on_from_its_own_answers_also_after_a_reload(tab, sides):
    tab.uncheck("#think")
    tab.click("#more")
    tab.fill("#system", "Be brief.")
    ask(tab, "one")
    expect(tab.locator(".foot").last).to_contain_text("tokens/s")
    tab.reload()
    expect(tab.locator(".side.tuned .answer")).to_have_text("Four")
    ask(tab, "two")
    expect(tab.locator(".side.tuned .foot").last).to_contain_text("tokens/s")
    expect(tab.locator("#send")).to_be_visible()
    for side, answer in (("base", "Five"), ("tuned", "Four")):
        conversation, manner = sides[side].asked[1]
        assert [m["content"] for m in conversation] == ["Be brief.", "one", answer, "two"]
        assert not manner.thinking and manner.temperature == 0.6 and manner.seed == 41
    tab.click("#new")
    expect(tab.locator(".turn")).to_have_count(0)
    ask(tab, "three")
    expect(tab.locator(".side.tuned .answer")).to_have_text("Four")
    assert len(sides["tuned"].asked[2][0]) == 2


def test_a_kept_conversation_is_not_given_to_another_model(tab, sides):
    ask(tab, "one")
    expect(tab.locator(".foot").last).to_contain_text("tokens/s")
    expect(tab.locator("#send")).to_be_visible()
    sides["tuned"].name = "scripted anew"
    tab.reload()
    expect(tab.locator("#models")).to_contain_text("scripted anew")
    expect(tab.locator(".turn")).to_have_count(0)


def test_what_a_model_writes_is_text_and_never_markup(tab, sides):
    sides["tuned"].script = reply(HOSTILE, HOSTILE)
    sides["base"].script = [PipeError(HOSTILE)]
    ask(tab, HOSTILE)
    expect(tab.locator(".side.tuned .answer")).to_have_text(HOSTILE)
    expect(tab.locator(".note.bad")).to_have_text(HOSTILE)
    expect(tab.locator(".question")).to_have_text(HOSTILE)
    assert tab.title() == "pipe chat" and tab.locator("main img, main script").count() == 0


def test_stop_ends_both_replies_and_the_next_question_is_answered(tab, sides):
    for partner in sides.values():
        waiting = threading.Event()
        partner.script = [Piece("answer", "I", 1), *[lambda w=waiting: w.wait(0.02)] * 2000]
    ask(tab, "a")
    expect(tab.locator(".side.tuned .answer")).to_have_text("I")
    tab.click("#stop")
    expect(tab.get_by_text("Stopped.")).to_have_count(2)
    assert all(partner.left.wait(5) for partner in sides.values())
    for partner in sides.values():
        partner.script = [Piece("answer", "Four", 1), ending()]
    ask(tab, "b")
    expect(tab.locator(".side.tuned .answer").last).to_have_text("Four")


def test_it_fits_a_phone_and_follows_the_theme(tab):
    ask(tab, "a" * 300)
    expect(tab.locator(".side.tuned .answer")).to_have_text("Four")
    seen = {}
    for theme in ("light", "dark"):
        tab.emulate_media(color_scheme=theme)
        style = "getComputedStyle(document.body)"
        seen[theme] = tab.evaluate(f"[{style}.backgroundColor, {style}.color]")
    assert seen["light"][0] != seen["dark"][0] and seen["light"][1] != seen["dark"][1]
    tab.set_viewport_size({"width": 360, "height": 640})
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    base, tuned = (tab.locator(f".side.{side}").bounding_box() for side in ("base", "tuned"))
    assert tuned["y"] >= base["y"] + base["height"]
    for button in ("#send", "#new", "#more"):
        box = tab.locator(button).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["height"] >= 30
