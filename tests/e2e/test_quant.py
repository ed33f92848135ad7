"""`pipe quant` on the demo's run, with real engines: killed, gone on with, and what it finds."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from tests.e2e.conftest import NOBODY, Demo

pytestmark = pytest.mark.e2e

ROWS = ["none", "int8", "llm-int8", "nf4", "nf4-dq", "fp4", "gptq", "BF16", "Q8_0", "Q4_K_M"]
ASKED = ["quant", "--limit", "8", *(part for name in ROWS for part in ("--method", name))]


def kept(demo: Demo) -> dict[str, bytes]:
    """Rows that are on disk."""
    rows = (demo.run.root / ".quant.work" / "rows").glob("tuned-*.json")
    return {path.stem.removeprefix("tuned-"): path.read_bytes() for path in rows}


def kill_after_the_second_row(demo: Demo) -> None:
    command = [sys.executable, "-m", "pipeline", *ASKED]
    quiet = subprocess.DEVNULL
    environment = {**os.environ, "OLLAMA_HOST": NOBODY}
    process = subprocess.Popen(
        command, cwd=demo.folder, env=environment, stdout=quiet, stderr=quiet
    )
    deadline = monotonic() + 120
    while len(kept(demo)) < 2:
        assert process.poll() is None and monotonic() < deadline
        sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def studied(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A copy of the demo's run, its study killed after two rows and gone on with."""
    folder: Path = tmp_path_factory.mktemp("quant")
    for stage in ("data", "train", "export"):
        shutil.copytree(demo.run.folder(stage), folder / "runs" / "demo" / stage)
    (folder / "pipe.yaml").write_text("extends: demo\n")
    copy = Demo(folder, NOBODY)
    kill_after_the_second_row(copy)
    before = kept(copy)
    assert set(before) >= {"none", "int8"} and not (copy.run.root / "quant").exists()
    copy.pipe(*ASKED)
    after = kept(copy)
    assert {name: after[name] for name in before} == before
    return copy


@pytest.fixture(scope="module")
def found(studied: Demo) -> dict[str, Any]:
    return dict(studied.json("quant/results.json"))


@pytest.fixture(scope="module")
def rows(found: dict[str, Any]) -> dict[str, Any]:
    return {row["method"]: row for row in found["rows"]}


def test_every_row_is_measured_but_the_tool_that_is_not_installed(
    found: dict[str, Any], rows: dict[str, Any]
) -> None:
    assert list(rows) == ROWS
    refused = {name: row["reason"] for name, row in rows.items() if row["status"] == "not_run"}
    assert refused == {"gptq": "ModuleNotFoundError: No module named 'gptqmodel'"}
    measured = [row for name, row in rows.items() if name not in refused]
    for key in ("weights_bytes", "memory_bytes", "tokens_per_second", "perplexity", "kl", "score"):
        assert all(row[key] for row in measured), key
    assert found["best"] in rows and found["questions"] == 8 == found["replies"]


def test_double_quantization_saves_0_37_bits_a_weight_and_costs_little(
    found: dict[str, Any], rows: dict[str, Any]
) -> None:
    bits = {name: rows[name]["bits_per_quantized_weight"] for name in ("nf4", "nf4-dq", "fp4")}
    assert bits["nf4"] == bits["fp4"] == 4.5
    # 32/64 bits of scales a weight become 8/64 + 32/(64 * 256), and an offset a matrix
    assert bits["nf4"] - bits["nf4-dq"] == pytest.approx(0.373, abs=0.005)
    single, double = found["layers"]["nf4"], found["layers"]["nf4-dq"]
    assert all(double[name] == pytest.approx(single[name], rel=0.02) for name in single)


def test_nf4_keeps_every_matrix_better_than_fp4_and_int8_better_than_both(
    found: dict[str, Any],
) -> None:
    layers = found["layers"]
    assert len(layers["nf4"]) == 7 * 3
    for name, error in layers["nf4"].items():
        assert layers["int8"][name] < 0.02 < error < layers["fp4"][name]
        assert layers["llm-int8"][name] == pytest.approx(layers["int8"][name], rel=0.02)


def test_the_more_bits_the_nearer_to_16(found: dict[str, Any], rows: dict[str, Any]) -> None:
    kl = {name: row["kl"]["mean"] for name, row in rows.items() if row["kl"]}
    assert kl["none"] == 0 and max(found["layers"]["BF16"].values()) < 1e-4
    assert kl["BF16"] < kl["Q8_0"] < 0.1 * kl["Q4_K_M"]
    assert kl["int8"] < 0.1 * kl["nf4"]
    memory = [rows[name]["memory_bytes"] for name in ("none", "int8", "nf4", "nf4-dq")]
    assert memory == sorted(memory, reverse=True)


def test_rows_that_are_there_are_shown_without_loading_a_model(
    studied: Demo, found: dict[str, Any]
) -> None:
    done = studied.pipe(*ASKED, "--json")
    assert json.loads(done.stdout) == found
    assert not re.search(r"eval |Merging|Making", done.stderr)
    assert [path.name for path in (studied.run.root / ".quant.work").iterdir()] == ["rows"]
