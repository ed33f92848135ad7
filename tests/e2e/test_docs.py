"""The pages do what they say: commands and notebooks are run, and Sphinx builds them."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from pipeline.assets import locate
from scripts import write_notebooks
from tests.docs.pages import DOCS, PAGES, Line, lines
from tests.docs.reader import Reader, emptied, reader, recipe_of
from tests.e2e.conftest import NOBODY, Demo
from tests.support.own_rows import own_rows

pytestmark = pytest.mark.e2e

ELSEWHERE = {"recipes/qwen3-0.6b-alpaca-100.md", "recipes/llama3.1-8b-price.md"}
"""Pages whose commands make what test_recipe_alpaca.py and test_recipe_price.py look at."""
SERVED = {"ollama", "register", "export", "run", "check"}
"""Commands that look for the run's own model in the server, or would put one in its place."""
RUN = [
    page
    for page in PAGES
    if page.relative_to(DOCS).as_posix() not in ELSEWHERE
    and any(line.reason is None for line in lines(page))
]


@pytest.fixture
def someone(
    demo: Demo, tmp_path: Path, readers_ollama: str, request: pytest.FixtureRequest
) -> Iterator[Reader]:
    """In a folder with a finished run, its files for Ollama, and a base, an adapter and rows of
    their own; their recipe is the one that the page is about, on a tiny base with few steps.
    """
    page: Path = request.getfixturevalue("page")
    shutil.copytree(demo.run.root, tmp_path / "runs" / "demo")
    shutil.copytree(demo.run.folder("export"), tmp_path, dirs_exist_ok=True)
    shutil.copytree(locate("builtin:tiny-llama"), tmp_path / "Llama-3.2-3B-Instruct")
    shutil.copytree(demo.run.folder("train") / "adapter", tmp_path / "lora_model")
    rows = own_rows(
        {"question": "task", "reasoning": "trace", "answer": "final", "reference": "gold"}
    )
    (tmp_path / "mine.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    recipe = recipe_of(page)
    with reader(tmp_path, emptied(readers_ollama), recipe) as someone:
        served = (SERVED & set(words[:2]) for line in lines(page) for words in line.commands)
        if recipe == "demo" and any(served):
            someone.types(Line("before the page", "pipe register"))
        yield someone


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_the_commands_of_a_page_run_in_their_order(page: Path, someone: Reader) -> None:
    for line in lines(page):
        if line.gpu:
            assert "GPU" in someone.is_refused(line)
        elif line.reason is None:
            someone.types(line)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as HTML, the notebooks that need no GPU executed; a warning is an error."""
    out = tmp_path_factory.mktemp("site") / "html"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-b", "html", str(DOCS), str(out)],
        env={**os.environ, "DOCS_EXECUTE": "1", "OLLAMA_HOST": NOBODY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def printed(notebook: nbformat.NotebookNode) -> str:
    """All that its cells printed."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")


def executed(site: Path, name: str) -> str:
    """What a notebook printed while the pages were built."""
    path = site.parent / "jupyter_execute" / "notebooks" / f"{name}.ipynb"
    return printed(nbformat.read(path, as_version=4))


def test_the_demo_notebook_trains_exports_and_answers(site: Path) -> None:
    text = executed(site, "demo-fine-tune")
    perplexity = {
        name: float(value)
        for name, value in re.findall(r"^(\w+) +perplexity +([\d.]+)", text, re.M)
    }
    assert perplexity["adapter"] < perplexity["base"] / 10
    assert perplexity["Q8_0"] == pytest.approx(perplexity["adapter"], rel=0.2)
    assert "rank 32 of at most 32" in text and "my-model-Q4_K_M.gguf" in text


def test_the_quantization_notebook_ranks_the_methods(site: Path) -> None:
    text = executed(site, "quantization")
    found = re.findall(r"^(\S+) +[\d.]+ bits a weight +error ([\d.]+)%", text, re.MULTILINE)
    error = {name: float(value) for name, value in found}
    assert error["int8-absmax"] < 1 < error["nf4"] < error["fp4"]
    assert error["nf4-double"] == pytest.approx(error["nf4"], rel=0.02)


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(https?:[^"]*)"')
    for page in site.rglob("*.html"):
        assert not loaded.findall(page.read_text(encoding="utf-8")), page.name


SMALL = """\
RECIPE = "demo"
SETTINGS = ["data.sources.0.limit=200", "export.quantize=[Q8_0]", "eval.limit=2"]
"""


def test_the_gpu_notebook_runs_as_far_as_this_machine_can(tmp_path: Path) -> None:
    """With the demo's base; cells that need a GPU or what it trained are not run."""
    notebook = write_notebooks.notebook(DOCS / "notebooks" / "one-gpu.md")
    tagged = {
        tag: [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]
        for tag in ("parameters", "skip-execution")
    }
    (parameters,) = tagged["parameters"]
    parameters.source = SMALL
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    text = printed(notebook)
    assert "demo: builtin:tiny-llama" in text and "data is missing" in text
    assert "learned: 59 of 103 tokens" in text and "tokens a row:" in text
    assert all(cell.execution_count is None for cell in tagged["skip-execution"])
