"""The recipes' pages: every built-in has one, and their tables are those of the kept figures."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.recipe import builtin_names
from scripts import recipe_table
from scripts.recipe_table import BETWEEN, KEPT, PAGES, with_results

MARKED = [page for page in sorted(PAGES.glob("*.md")) if "<!-- results: " in page.read_text()]
SHOWN = [
    KEPT / f"{found[1]}.json" for page in MARKED for found in BETWEEN.finditer(page.read_text())
]


def known() -> list[tuple[str, dict[str, Any]]]:
    """Every figure that no run of ours on this base gave, with its file's name."""
    found = ((path.stem, json.loads(path.read_text()).get("known", ())) for path in SHOWN)
    return [(name, each) for name, figures in found for each in figures]


@pytest.mark.parametrize("page", MARKED, ids=lambda page: page.stem)
def test_a_page_shows_what_was_kept(page: Path) -> None:
    """Make it anew: python scripts/recipe_table.py"""
    text = page.read_text(encoding="utf-8")
    begun, ended = text.count("<!-- results: "), text.count("<!-- /results -->")
    assert begun == ended == len(BETWEEN.findall(text))
    assert with_results(text) == text


@pytest.mark.parametrize("name", [name for name in builtin_names() if name != "demo"])
def test_every_built_in_recipe_has_a_page_that_the_list_names(name: str) -> None:
    assert (PAGES / f"{name}.md").is_file()
    listed = (PAGES / "index.md").read_text(encoding="utf-8")
    assert f"[{name}]({name}.md)" in listed
    assert f"\n{name}\n" in listed


@pytest.mark.parametrize(("name", "figure"), known(), ids=lambda each: str(each)[:40])
def test_a_figure_says_how_it_is_known(name: str, figure: dict[str, Any]) -> None:
    how, _, why = figure["how"].partition(": ")
    assert how in ("expected", "measured") and why
    # what was measured is read from the file that the measurement left
    assert ("from" in figure) == (how == "measured")
    assert f"| {figure['figure']} |" in recipe_table.tables(recipe_table.read(name))


def test_a_table_follows_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_table, "KEPT", tmp_path)
    figure = {"figure": "loss", "value": 1.5, "unit": "loss", "how": "expected: why"}
    page = "Before.\n<!-- results: one -->\nold\n<!-- /results -->\nAfter.\n"
    (tmp_path / "one.json").write_text(json.dumps({"known": [figure]}))
    first = with_results(page)
    assert first == (
        "Before.\n<!-- results: one -->\n| Figure | Value | How it is known |\n"
        "| --- | --- | --- |\n| loss | 1.5 | expected: why |\n<!-- /results -->\nAfter.\n"
    )
    (tmp_path / "one.json").write_text(json.dumps({"known": [figure | {"value": 1.25}]}))
    assert with_results(first) == first.replace("| 1.5 |", "| 1.25 |")
    with pytest.raises(FileNotFoundError):
        with_results(page.replace("one", "two"))


@pytest.mark.parametrize(
    "said", ["a | b", "`code`", "one\ntwo", "<script>", "\u202eabc\x00", "x" * 500]
)
def test_what_a_model_said_stays_in_its_cell(said: str) -> None:
    shown = recipe_table._words(said)
    assert re.fullmatch(r"`[^`|\n]+`", shown)
    assert len(shown) < 200
    assert "\u202e" not in shown and "\x00" not in shown
