"""`pipe status` as a user types it: stages first, then the studies that there are."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli.status import status
from pipeline.run import Manifest, Run, Stage
from pipeline.run.files import write_json
from pipeline.run.studies import recorded, results_path


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Trained, with a study of each precision."""
    monkeypatch.chdir(tmp_path)
    found = Run(Path("runs/demo"))
    publish(found, "data", 1)
    publish(found, "train", 1)
    entries = found.input_entry("data") | found.input_entry("train")
    write_json(results_path(found, "quant"), {"schema": 2, "inputs": recorded(entries)})
    return found


def publish(run: Run, stage: Stage, seed: int) -> None:
    with run.publish(stage) as draft:
        draft.manifest = Manifest(stage, {}, {}, seed=seed)


def states() -> dict[str, Any]:
    done = CliRunner().invoke(status, ["-r", "demo", "--json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout)["studies"])


def lines() -> list[str]:
    done = CliRunner().invoke(status, ["-r", "demo"])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def test_a_study_stands_below_the_stages_and_one_that_is_not_there_does_not() -> None:
    assert states() == {"quant": "done"}
    assert "  quant   done" in lines() and not any("price" in line for line in lines())


def test_a_study_of_another_training_is_stale_and_one_of_an_earlier_pipe_changed(run: Run) -> None:
    publish(run, "train", 2)
    write_json(results_path(run, "compare"), {"schema": 1})
    assert states() == {"compare": "changed", "quant": "stale"}
    assert [line for line in lines() if line.startswith("  ")][-2:] == [
        "  compare changed: runs/demo/compare/results.json has schema 1; this pipe writes 2. "
        "Again: pipe compare -r demo --vary train.lora.r=8,16,32",
        "  quant   stale: made of another training. Again: pipe quant -r demo",
    ]
