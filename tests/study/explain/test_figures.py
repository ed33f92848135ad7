"""The figures and the figures' page: drawn anew they are what is committed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli.quant_explain import explain

ROOT = Path(__file__).parents[3]
FIGURES = ROOT / "docs" / "figures"
PAGE = ROOT / "docs" / "quantization-by-hand.md"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("figures")
    command = [sys.executable, str(ROOT / "scripts" / "draw_figures.py"), "--out", str(out)]
    subprocess.run(command, check=True, cwd=out, timeout=120)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_redrawing_gives_the_committed_bytes(drawn):
    """Make them anew: python scripts/draw_figures.py"""
    stale = [name for name, made in drawn.items() if (FIGURES / name).read_bytes() != made]
    assert len(drawn) == 9 and stale == []


def test_the_page_shows_figures_that_are_there():
    named = re.findall(r"\]\(figures/([\w-]+\.svg)\)", PAGE.read_text())
    assert named and all((FIGURES / name).is_file() for name in named)


def test_the_page_prints_what_the_command_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "99")
    said = CliRunner().invoke(explain, ["-r", "demo", "--columns", "2"]).output
    printed = [" ".join(line.split()) for line in said.splitlines()]
    blocks = re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shown = [" ".join(line.split()) for block in blocks for line in block.splitlines()]
    assert shown and [line for line in shown if line not in printed] == []
