"""The pages hang together: links, figures, contents, the keys and files that they name."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from pipeline.recipe import load
from scripts import draw_ideas, write_notebooks
from tests.docs.pages import DOCS, PAGES, ROOT, blocks, tokens

NAMES = [page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES]
EACH = pytest.mark.parametrize("page", PAGES, ids=NAMES)


def targets(page: Path) -> Iterator[str]:
    """Of every link and picture."""
    for token in tokens(page):
        for child in token.children or ():
            if target := child.attrGet("href") or child.attrGet("src"):
                yield str(target)


@cache
def anchors(page: Path) -> set[str]:
    """What the page's headings are called in links, as GitHub and MyST have it."""
    headings = [
        following.content
        for token, following in pairwise(tokens(page))
        if token.type == "heading_open"
    ]
    plain = (re.sub(r"[`*]", "", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@EACH
def test_a_link_leads_somewhere(page: Path) -> None:
    for target in targets(page):
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https", target
            continue
        to = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        assert to.exists() and to.is_relative_to(ROOT), target
        if parts.fragment:
            assert parts.fragment in anchors(to), target


@EACH
def test_a_page_has_one_title_and_says_what_its_pictures_show(page: Path) -> None:
    titles = [token for token in tokens(page) if token.type == "heading_open" and token.tag == "h1"]
    assert len(titles) == 1
    for token in tokens(page):
        for child in token.children or ():
            assert child.type != "image" or child.content, child.attrs


def contents(page: str) -> Iterator[str]:
    """The pages in a page's tables of contents, and theirs."""
    yield page
    folder = PurePosixPath(page).parent
    for token in tokens(DOCS / f"{page}.md"):
        if token.type == "fence" and token.info.startswith("{toctree}"):
            for entry in token.content.splitlines():
                if entry and not entry.startswith(":"):
                    yield from contents((folder / entry).as_posix())


def test_every_page_stands_once_in_the_contents() -> None:
    assert sorted(contents("index")) == NAMES


def test_every_figure_is_shown() -> None:
    shown = {unquote(PurePosixPath(target).name) for page in PAGES for target in targets(page)}
    drawn = {path.name for path in (DOCS / "figures").glob("*")}
    assert drawn and drawn <= shown


@pytest.mark.parametrize(("name", "picture"), draw_ideas.figures().items())
def test_a_picture_is_what_the_code_draws(name: str, picture: str) -> None:
    there = (draw_ideas.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert there == picture, "Run: python scripts/draw_ideas.py"


def keys_named() -> list[tuple[str, str]]:
    """The keys of a recipe that stand in the pages' text as code."""
    sections = "|".join(load("llama3.2-3b-r1").recipe.model_dump())
    pattern = re.compile(rf"`((?:{sections})\.[a-z_][a-z_.]*)(?=[`:= ])")
    return sorted(
        {
            (name, key)
            for name, page in zip(NAMES, PAGES, strict=True)
            for key in pattern.findall(page.read_text(encoding="utf-8"))
            if not re.search(r"\.(?:jsonl?|yaml|md|html|svg|csv|py)$", key)
        }
    )


@pytest.mark.parametrize(("name", "key"), keys_named())
def test_a_recipe_key_that_is_named_is_one(name: str, key: str) -> None:
    section: object = load("llama3.2-3b-r1").recipe.model_dump()
    for part in key.split("."):
        assert isinstance(section, dict) and part in section, f"{name}: {key}"
        section = section[part]


@EACH
def test_a_file_of_this_repository_that_is_named_is_there(page: Path) -> None:
    named = r"`((?:benchmarks|scripts|modelfiles|data/samples|tests|docs|pipeline)/[\w./-]+\.\w+)`"
    for name in re.findall(named, page.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file() or Path(name).stem.isupper(), name


@EACH
def test_no_page_names_a_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"/(?:home|root|work|tmp)/", text)


@EACH
def test_a_marker_stands_directly_above_its_block(page: Path) -> None:
    marked = [marker for _, marker in blocks(page) if marker]
    shown = re.findall("<!-- (?:not run|refused)", page.read_text(encoding="utf-8"))
    assert len(shown) == len(marked)


NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.md"))


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_for_colab_is_the_page_beside_it(source: Path) -> None:
    made = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert made == write_notebooks.as_json(source), "Run: python scripts/write_notebooks.py"
    assert not any(cell.get("outputs") for cell in json.loads(made)["cells"])


def statements(source: Path) -> Iterator[ast.AST]:
    """Everything in a notebook's code, that of cells which no test runs too."""
    for cell in write_notebooks.notebook(source).cells:
        if cell.cell_type == "code":
            code = "\n".join(line for line in cell.source.splitlines() if line[:1] != "!")
            yield from ast.walk(ast.parse(code))


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_takes_from_the_package_is_there(source: Path) -> None:
    modules: dict[str, object] = {}
    for node in statements(source):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline"):
            for name in (each.name for each in node.names):
                modules[name] = _taken(str(node.module), name)
    for node in statements(source):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = modules.get(node.value.id)
            assert owner is None or hasattr(owner, node.attr), ast.unparse(node)


def _taken(module: str, name: str) -> object:
    """What `from MODULE import NAME` gives."""
    found = import_module(module)
    return getattr(found, name) if hasattr(found, name) else import_module(f"{module}.{name}")


def test_the_settings_of_the_gpu_notebook_are_a_recipes() -> None:
    cells = write_notebooks.notebook(DOCS / "notebooks" / "one-gpu.md").cells
    given: dict[str, Any] = {}
    (cell,) = (cell for cell in cells if "parameters" in cell.metadata.get("tags", ()))
    exec(cell.source, given)
    recipe = load(given["RECIPE"], given["SETTINGS"]).recipe
    assert recipe.train.device == "cuda" and recipe.name == given["RECIPE"]
