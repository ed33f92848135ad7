"""The rule: not significantly worse, then lean, then fast, then accurate."""

from pathlib import Path
from typing import Any

import pytest

from tests.study.compare.support import GB, Figures, bench


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The results for r=8, r=16 and r=32 that measure these figures."""

    def compare(*figures: Figures, **how: Any) -> dict[str, Any]:
        known = dict(zip(("r_8", "r_16", "r_32"), figures, strict=True))
        made = bench(tmp_path / "runs" / "demo", monkeypatch, **known)
        return made.compare("lora.r=8,16,32", **how)

    return compare


def test_one_that_is_clearly_worse_is_not_best_however_lean(named: Any) -> None:
    lean = Figures(right=60, memory=GB, seconds=1)
    found = named(lean, Figures(right=90), Figures(right=88, memory=int(1.5 * GB)))
    assert found["best"] == "r=32"
    tests = {row["label"]: row["against_most_accurate"] for row in found["variants"]}
    assert tests["r=16"] is None
    assert tests["r=8"]["p_value"] < 0.001 and tests["r=8"]["change"]["value"] == -0.3
    assert tests["r=32"]["p_value"] > 0.05 and tests["r=32"]["questions"] == 100
    assert "the same 100 questions" in found["rule"] and "than r=16" in found["rule"]


def test_memory_within_a_twentieth_is_the_same_and_time_decides(named: Any) -> None:
    quick = Figures(memory=int(1.04 * GB), seconds=50)
    found = named(Figures(memory=GB), quick, Figures(memory=int(1.2 * GB), seconds=1))
    assert found["best"] == "r=16"


def test_where_neither_tells_them_apart_the_most_accurate_is_best(named: Any) -> None:
    near = Figures(right=82, memory=int(2.02 * GB), seconds=103)
    assert named(Figures(right=81), near, Figures(right=80))["best"] == "r=16"


def test_without_questions_the_lowest_loss_on_the_same_eval_rows_is_best(named: Any) -> None:
    figures = Figures(), Figures(eval_loss=0.4), Figures(eval_loss=0.6)
    found = named(*figures, stages=("train",))
    assert found["best"] == "r=16" and "loss on the eval rows" in found["rule"]
    assert all(row["after"] is None for row in found["variants"])


def test_other_rows_have_other_losses_so_none_is_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(tmp_path / "runs" / "demo", monkeypatch)
    found = made.compare("no_thinking_share=0,0.1", stages=("train",))
    assert found["best"] is None and "No variant is named best" in found["rule"]
