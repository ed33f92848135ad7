"""Precision gates: bars from what the base alone costs, measured once and kept."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.check import precision
from pipeline.check.gates import Finding, Probe, judge
from pipeline.check.measure import SAME, Cost
from pipeline.check.merge import Fit
from pipeline.check.precision import bar
from pipeline.check.subject import Subject
from tests.check.fakes import subject

VOCABULARY = 50
NAN = float("nan")


def costing(tmp_path: Path, own: dict[str, Cost], base: dict[str, Cost]) -> Subject:
    """A run whose models cost this, in 4-bit training."""
    asked = subject(tmp_path)
    trained_as(asked)
    asked.files = {name: tmp_path for name in own if name[0] == "Q"}
    asked.measures = SimpleNamespace(  # type: ignore[assignment]
        tuned=own.__getitem__,
        baseline=base.__getitem__,
        close_adapter=lambda: None,
        precision={},
        positions=1000,
        looked_at="1,000 tokens of 20 replies, whole",
    )
    return asked


def trained_as(asked: Subject, bits: int = 4, device: str = "cpu") -> None:
    """Say so of its run."""
    known = SimpleNamespace(bits=bits, device=device, is_full=False)
    asked.run.trained = known  # type: ignore[misc, assignment]


def test_a_file_that_costs_what_the_base_costs_passes_and_is_kept_for_the_report(
    tmp_path: Path,
) -> None:
    cost = Cost(0.03, 0.95)
    asked = costing(tmp_path, {"Q4_K_M": cost}, {"Q4_K_M": cost})
    compared, wrong = precision.quantization(asked)
    assert wrong == [] and "Q4_K_M KL 0.03 nats, same first choice 95.0%" in compared
    assert asked.divergences.precision == {
        "Q4_K_M": {"kl": 0.03, "same_top": 0.95, "baseline_kl": 0.03, "baseline_same_top": 0.95}
    }


@pytest.mark.parametrize(
    "cost",
    [Cost(6.3, 0.29), Cost(0.0651, 0.99), Cost(0.001, 0.9), Cost(NAN, NAN), Cost(0.001, NAN)],
    ids=["not merged", "diverges", "other first choices", "NaN", "half NaN"],
)
def test_a_file_that_costs_more_fails_and_is_named(tmp_path: Path, cost: Cost) -> None:
    base = Cost(0.032, 0.95)
    good = {"Q8_0": Cost(0.001, 0.99)}
    asked = costing(tmp_path, good | {"Q4_K_M": cost}, good | {"Q4_K_M": base})
    _, wrong = precision.quantization(asked)
    assert len(wrong) == 1 and wrong[0].startswith("Q4_K_M: ")


def test_the_bar_grows_with_what_the_base_costs() -> None:
    assert bar(Cost(0.0, 1.0), 1000) == Cost(0.001, 0.97)
    assert bar(Cost(0.1, 0.9), 1000).kl == pytest.approx(0.201)


def test_the_fewer_tokens_the_more_may_chance_move_the_share_of_first_choices(
    tmp_path: Path,
) -> None:
    margins = [0.9 - bar(Cost(0.1, 0.9), count).same_top for count in (10**6, 700, 100)]
    assert margins[0] == pytest.approx(precision.MARGIN) and margins == sorted(margins)
    assert margins[1] == pytest.approx(3 * (2 * 0.09 / 700) ** 0.5)
    asked = costing(tmp_path, {"merged": Cost(1e-5, 0.985)}, {})
    assert precision.engines_agree(asked)[1] == []
    asked.measures.positions = 100_000  # type: ignore[union-attr, misc]
    assert len(precision.engines_agree(asked)[1]) == 1


@pytest.mark.parametrize("base", [Cost(NAN, NAN), Cost(float("inf"), 0.9)])
def test_figures_that_are_no_numbers_fail_and_are_null_in_the_results(
    tmp_path: Path, base: Cost
) -> None:
    asked = costing(tmp_path, {"Q8_0": Cost(float("inf"), 0.9)}, {"Q8_0": base})
    _, wrong = precision.quantization(asked)
    assert len(wrong) == 1 and "not finite" in wrong[0]
    found = asked.divergences.precision["Q8_0"]
    assert found["kl"] is None and found["baseline_kl"] is None and found["same_top"] == 0.9
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("cost", [Cost(6e-4, 1.0), Cost(1e-6, 0.98), Cost(NAN, NAN)])
def test_engines_that_disagree_on_one_model_fail(tmp_path: Path, cost: Cost) -> None:
    assert len(precision.engines_agree(costing(tmp_path, {"merged": cost}, {}))[1]) == 1


@pytest.mark.parametrize(("device", "passes"), [("cuda", True), ("cpu", False)])
def test_bf16_on_a_gpu_may_cost_what_it_costs_the_base(
    tmp_path: Path, device: str, passes: bool
) -> None:
    asked = costing(tmp_path, {"merged": Cost(5e-3, 0.98)}, {SAME: Cost(4e-3, 0.987)})
    trained_as(asked, device=device)
    assert (precision.engines_agree(asked)[1] == []) == passes


def test_engines_that_agree_pass(tmp_path: Path) -> None:
    asked = costing(tmp_path, {"merged": Cost(4e-4, 0.995)}, {})
    assert precision.engines_agree(asked)[1] == []


@pytest.mark.parametrize(("bits", "passes"), [(4, True), (8, False), (16, False)])
def test_what_the_bits_cost_the_base_is_allowed_only_where_training_had_them(
    tmp_path: Path, bits: int, passes: bool
) -> None:
    base = {"NF4": Cost(0.06, 0.95), "INT8": Cost(0.01, 0.99)}
    asked = costing(tmp_path, {"adapter": Cost(0.05, 0.97)}, base)
    trained_as(asked, bits)
    assert (precision.adapter_kept(asked)[1] == []) == passes


def merge_finding(monkeypatch: pytest.MonkeyPatch, *fits: Fit) -> Finding:
    monkeypatch.setattr(precision, "_fits", lambda _: [("Q8_0", each) for each in fits])
    closed: list[bool] = []
    measures = SimpleNamespace(close_adapter=lambda: closed.append(True))
    run = SimpleNamespace(trained=SimpleNamespace(is_full=False))
    asked = SimpleNamespace(files={"Q8_0": Path()}, divergences=measures, run=run)
    try:
        return precision.merge_took_effect(asked)  # type: ignore[arg-type]
    finally:
        assert closed  # what comes next wants the memory


def test_the_merge_gate_counts_what_it_could_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    merged, faint = Fit("a", 0.01, 0.1, 0.99, 0.005), Fit("b", 0.01, 0.1, 0.4, 0.3)
    compared, wrong = merge_finding(monkeypatch, merged, faint, Fit("c", 0.01, 0.1, None))
    assert wrong == []
    assert compared == (
        "all rows; 1 tensors hold 0.990 to 0.990 of the adapter's change, 1 too little of it to "
        "tell alone; Q8_0 as a whole 0.990; 1 are to be the base's own"
    )
    _, wrong = merge_finding(monkeypatch, merged, Fit("d", 0.01, 0.1, 0.0, 0.005))
    assert wrong == ["Q8_0: d has 0.000 of the adapter's change, not 1 ± 0.050"]


def test_a_merge_that_cannot_be_told_at_all_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    faint = Fit("b", 0.01, 0.1, 1.0, 0.3)

    def look(_: Subject) -> Finding:
        return merge_finding(monkeypatch, faint)

    gate = judge(Probe("merge", "precision", (), "export", look), subject(Path("/tmp")))
    assert gate.status == "not_run" and "too small to be told" in gate.reason


def test_what_no_tensor_can_tell_alone_all_can_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change merged at 0.8 in a hundred tensors of which each could hold it."""
    compared, wrong = merge_finding(
        monkeypatch, *[Fit("a", 0.01, 0.1, share, 0.03) for share in (0.81, 0.83) * 50]
    )
    assert wrong == [
        "Q8_0: the file, its tensors together, has 0.820 of the adapter's change, not 1 ± 0.038"
    ]
    assert "all rows; 100 tensors" in compared
    good = [Fit("a", 0.01, 0.1, share, 0.05) for share in (0.9, 1.1) * 50]
    compared, wrong = merge_finding(monkeypatch, *good)
    assert wrong == [] and "Q8_0 as a whole 1.000" in compared
