"""Results of earlier work, changed files and figures that are none: shown, and never a yes."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import write_report, write_versus
from pipeline.report.gather import gather
from pipeline.report.summary import summary
from pipeline.run import Run, Stage
from tests.report.figures import gates
from tests.report.fixture import write_run


def test_a_stale_stage_is_shown_and_announced(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    manifest = run.folder("export") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 3407', '"seed": 3408'))
    path, gaps = write_report(run, "-r demo")
    texts = {gap.text: gap.command for gap in gaps}
    assert texts[f"{run.folder('eval')} was made from another export than the one there now."] == (
        "pipe eval -r demo"
    )
    page = path.read_text(encoding="utf-8")
    assert "Not all of this still holds" in page and "4.8% → 84.0%" in page


def remake(run: Run, stage: Stage) -> None:
    """As if it had been made again with another seed."""
    manifest = run.folder(stage) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 3407', '"seed": 3408'))


@pytest.mark.parametrize(
    ("stage", "checked", "measured"),
    [
        ("export", "Checked for an earlier export", "Measured on an earlier export"),
        ("data", "Checked for earlier data", "Measured on earlier data"),
    ],
)
def test_what_was_found_of_earlier_work_is_no_yes(
    tmp_path: Path, stage: Stage, checked: str, measured: str
) -> None:
    run = write_run(tmp_path / "demo", gates=gates(["passed"] * 6))
    remake(run, stage)
    _, better, safe, _ = summary(gather(run))
    assert (better.headline, better.tone) == (f"{measured}: 4.8% → 84.0%", "warn")
    assert (safe.headline, safe.tone) == (checked, "warn")


def test_changed_files_are_no_yes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo", gates=gates(["passed"] * 6))
    next(run.folder("export").glob("*.gguf")).write_bytes(b"rot")
    _, better, safe, _ = summary(gather(run))
    assert (safe.headline, safe.tone) == ("Checked before files were changed", "warn")
    assert better.headline.startswith("Measured before files") and better.tone == "warn"


NAN, INFINITE = float("nan"), float("inf")
NO_VALUE = {"value": NAN, "low": NAN, "high": INFINITE}
KL = {"kl": NAN, "same_top": NAN, "baseline_kl": INFINITE, "baseline_same_top": None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"precision": {"Q8_0": KL}}, "KL divergence not a number"),
        ({"precision": {"Q8_0": KL | {"kl": None}}}, "not a number"),
        ({"precision": {"Q8_0": {"kl": 0.0, "baseline_kl": -1e-9}}}, "KL divergence 0"),
        ({"precision": {"Q8_0": KL, "Q4_K_M": KL}}, "not a number"),
        ({"scores": {"exact_match": NO_VALUE}}, "No clear difference: not a number → not a number"),
        ({"scores": {"perplexity": NO_VALUE}}, "not a number"),
        ({"losses": [3.0, NAN, 2.0]}, "Loss 3 → 2"),
        ({"losses": [3.0, None]}, "Loss 3 → not a number"),
        ({"losses": [NAN]}, "Loss not a number → not a number"),
        ({"grad_norm": INFINITE}, "Loss 6.13"),
    ],
    ids=str,
)
def test_what_is_no_finite_number_is_said_to_be_none(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    few = {"items": 4, "engines": ["base", "adapter"]}  # which keeps the paired tests quick
    run = write_run(tmp_path / "demo", **few, **changes)
    page = write_report(run)[0].read_text(encoding="utf-8")
    assert said in page
    assert not re.search(r"\b(nan|inf)\b", page)
    assert write_versus(run, run)[0].exists()


def test_a_changed_file_is_announced(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    (run.folder("check") / "results.json").write_text("{")
    path, gaps = write_report(run, "-r demo")
    assert any("is not the file that check wrote" in gap.text for gap in gaps)
    assert any("is no JSON" in gap.text for gap in gaps)
    assert {gap.command for gap in gaps} == {"pipe check -r demo"}
    assert "Not checked" in path.read_text(encoding="utf-8")
