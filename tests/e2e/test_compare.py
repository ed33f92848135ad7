"""Variants of the demo, really trained and asked: killed in between, gone on with, tabled."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import NOBODY, Demo

pytestmark = pytest.mark.e2e

VARY = ("compare", "--vary", "train.method=full,qlora,lora-8bit")
PATIENCE = 120


def test_killed_between_two_variants_it_goes_on_and_does_nothing_twice(short: Demo) -> None:
    compare = short.run.root / "compare"
    full, qlora = (compare / "runs" / f"method={name}" for name in ("full", "qlora"))
    _killed_when_there(short, full / "train" / "manifest.json")
    assert not (compare / "results.json").exists()
    trained = (full / "train" / "manifest.json").stat()

    said = short.pipe(*VARY).stderr
    assert "method=full: train is up to date." in said
    assert (full / "train" / "manifest.json").stat().st_ino == trained.st_ino
    # the base is asked by the first, its answers are there for the second
    assert "method=qlora: eval base goes on with 3 answers that are there." in said
    assert "method=full: eval base goes on" not in said
    assert "method=lora-8bit is refused: method lora-8bit needs a GPU" in said

    found = json.loads((compare / "results.json").read_text())
    rows = {row["label"]: row for row in found["variants"]}
    assert [row["status"] for row in found["variants"]] == ["done", "done", "refused"]
    _check_figures(rows["method=full"], rows["method=qlora"])
    assert found["reference"] == "method=full" and found["best"] in rows
    # without an export, and on the same rows
    assert not (full / "export").exists() and not (short.run.root / "export").exists()
    assert (full / "data" / "test.jsonl").samefile(qlora / "data" / "test.jsonl")

    written = _bytes(compare)
    again = json.loads(short.pipe(*VARY, "--json").stdout)
    assert again == found
    assert _bytes(compare) == written
    _check_pages(compare, short)


def _bytes(compare: Path) -> dict[str, bytes]:
    files = ("results.json", "compare.csv", "compare.html")
    return {name: (compare / name).read_bytes() for name in files}


def _killed_when_there(demo: Demo, path: Path) -> None:
    """Start the comparison; SIGKILL it and all its children once `path` exists."""
    started = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *VARY],
        cwd=demo.folder,
        env={**os.environ, "OLLAMA_HOST": NOBODY},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + PATIENCE
        while not path.exists():
            assert started.poll() is None and time.monotonic() < until, "it ended before"
            time.sleep(0.02)
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def _check_figures(full: dict, qlora: dict) -> None:
    assert full["trainable_parameters"] == full["total_parameters"]
    assert qlora["trainable_parameters"] == 393_216 < qlora["total_parameters"]
    for row in (full, qlora):
        assert row["memory_bytes"] > 1e8 and row["seconds"] > 0 and row["steps"] == 4
        assert row["general_loss_before"] > 0 and row["general_loss_after"] > 0
        assert 0 <= row["before"]["low"] <= row["before"]["value"] <= row["before"]["high"] <= 1
        assert row["after"]["value"] is not None and row["eval_loss"] > 0
    # one base, asked once: both start from it
    assert full["before"] == qlora["before"]
    assert (full["memory_saving"], full["speed_up"]) == (0, 1)


def _check_pages(compare: Path, demo: Demo) -> None:
    with (compare / "compare.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "done", "refused"]
    page = (compare / "compare.html").read_text()
    assert "LoRA and full fine-tuning of demo" in page and "needs a GPU" in page
    shown = demo.pipe("compare", "--markdown").stdout
    assert shown.startswith("### LoRA and full fine-tuning of demo") and "| method=qlora |" in shown
