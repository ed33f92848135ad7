"""The pages do what they say: commands and notebooks are run, and Sphinx builds them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from nbclient import NotebookClient

from pipeline.cli import main
from scripts import write_notebooks
from tests.docs.pages import DOCS, PAGES, Line, lines
from tests.e2e.conftest import NOBODY, Demo

pytestmark = pytest.mark.e2e

FEW = "extends: demo\ntrain: {max_steps: 4}\neval: {limit: 4}\n"
RUN = [page for page in PAGES if any(line.reason is None for line in lines(page))]


@pytest.fixture
def beside_a_run(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a finished run of its own, a recipe of few steps, and the real Ollama."""
    shutil.copytree(demo.run.root, tmp_path / "runs" / "demo")
    (tmp_path / "few.yaml").write_text(FEW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPE_RECIPE", "few.yaml")
    monkeypatch.setenv("OLLAMA_HOST", demo.ollama)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def run(line: Line) -> None:
    """In this process: torch is imported once for all of them."""
    for _, *arguments in line.commands:
        result = CliRunner().invoke(main, arguments, input="")
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"


@pytest.mark.usefixtures("beside_a_run")
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_the_commands_of_a_page_run_in_their_order(page: Path) -> None:
    for line in lines(page):
        if line.reason is None:
            run(line)


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
