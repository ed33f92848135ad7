"""scripts/bench_train.py runs through: a few steps of ours, of PEFT's and of a notebook's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "bench_train.py"


@pytest.mark.e2e
def test_all_contenders_learn_the_same_rows_at_a_speed(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    asked = ["--steps", "3", "--warm-up", "1", "--rounds", "1"]
    asked += ["--contenders", "pipe,peft,notebook", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *asked, "--folder", tmp_path / "work", "--out", out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["device"] == "cpu" and not result["failed"]
    contenders = result["contenders"]
    assert [contenders[name]["rows_a_step"] for name in ("pipe", "peft", "notebook")] == [16, 16, 8]
    for each in contenders.values():
        assert each["tokens_per_second"] > 0 and len(each["losses"]) == 3
        assert min(each["grad_norms"]) > 0 and each["peak_memory_bytes"]["resident"] > 5e8
    # one seed for the adapter, one order of the rows, one way to quantize
    assert contenders["pipe"]["losses"] == pytest.approx(contenders["peft"]["losses"], abs=1e-3)
    assert set(result["ratios"]) == {"pipe to peft", "pipe to notebook"}
    assert "pipe to peft: " in done.stdout


def test_a_large_shape_on_a_cpu_is_refused_with_the_reason() -> None:
    asked = [sys.executable, SCRIPT, "--shape", "8b", "--device", "cpu"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the shape 8b needs a GPU" in done.stderr
