"""Precision gates: bars from what the base alone costs, measured once and kept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chat import Encoded, Encoder
from pipeline.check import precision
from pipeline.check.gates import Finding, Probe, judge
from pipeline.check.measure import NF4, SAME, WIDE, Cost, Measures, shortened
from pipeline.check.merge import Fit
from pipeline.check.part import RunPart
from pipeline.check.precision import bar
from pipeline.check.subject import Subject
from pipeline.errors import PipeError
from pipeline.run import silent
from tests.check.fakes import FORMAT, subject
from tests.support.exported import demo, exported_run
from tests.support.tokenizer import tokenizer_json

VOCABULARY = 50
NAN = float("nan")


def costing(tmp_path: Path, own: dict[str, Cost], base: dict[str, Cost]) -> Subject:
    """A run whose models cost this, in 4-bit training."""
    asked = subject(tmp_path)
    asked.run.recipe = demo()  # type: ignore[misc]
    asked.files = {name: tmp_path for name in own if name[0] == "Q"}
    asked.measures = SimpleNamespace(  # type: ignore[assignment]
        tuned=own.__getitem__,
        baseline=base.__getitem__,
        close_adapter=lambda: None,
        precision={},
        positions=1000,
    )
    return asked


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
    assert len(wrong) == 1 and wrong[0].startswith("Q4_K_M: KL ")


def test_the_bar_grows_with_what_the_base_costs() -> None:
    assert bar(Cost(0.0, 1.0)) == Cost(0.001, 0.97)
    assert bar(Cost(0.1, 0.9)).kl == pytest.approx(0.201)


@pytest.mark.parametrize("cost", [Cost(6e-4, 1.0), Cost(1e-6, 0.98), Cost(NAN, NAN)])
def test_engines_that_disagree_on_one_model_fail(tmp_path: Path, cost: Cost) -> None:
    assert len(precision.engines_agree(costing(tmp_path, {"merged": cost}, {}))[1]) == 1


@pytest.mark.parametrize(("device", "passes"), [("cuda", True), ("cpu", False)])
def test_bf16_on_a_gpu_may_cost_what_it_costs_the_base(
    tmp_path: Path, device: str, passes: bool
) -> None:
    asked = costing(tmp_path, {"merged": Cost(5e-3, 0.98)}, {SAME: Cost(4e-3, 0.987)})
    asked.run.recipe = SimpleNamespace(train=SimpleNamespace(device=device))  # type: ignore[misc, assignment]
    assert (precision.engines_agree(asked)[1] == []) == passes


def test_engines_that_agree_pass(tmp_path: Path) -> None:
    asked = costing(tmp_path, {"merged": Cost(4e-4, 0.995)}, {})
    assert precision.engines_agree(asked)[1] == []


@pytest.mark.parametrize(("in_4bit", "passes"), [(True, True), (False, False)])
def test_what_4_bits_cost_the_base_is_allowed_only_where_training_had_them(
    tmp_path: Path, in_4bit: bool, passes: bool
) -> None:
    asked = costing(tmp_path, {"adapter": Cost(0.05, 0.97)}, {NF4: Cost(0.06, 0.95)})
    asked.run.recipe = demo(f"train.load_in_4bit={in_4bit}")  # type: ignore[misc]
    assert (precision.adapter_kept(asked)[1] == []) == passes


def merge_finding(monkeypatch: pytest.MonkeyPatch, *fits: Fit) -> Finding:
    monkeypatch.setattr(precision, "_fits", lambda _: [("Q8_0", each) for each in fits])
    return precision.merge_took_effect(None)  # type: ignore[arg-type]


def test_the_merge_gate_counts_what_it_could_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    merged, faint = Fit("a", 0.01, 0.1, 0.99, 0.05), Fit("b", 0.01, 0.1, 0.4, 2.0)
    compared, wrong = merge_finding(monkeypatch, merged, faint, Fit("c", 0.01, 0.1, None, 0.0))
    assert wrong == []
    assert compared == (
        "1 tensors hold 0.990 to 0.990 of the adapter's change, 1 too little of it to tell; "
        "1 are to be the base's own"
    )
    _, wrong = merge_finding(monkeypatch, merged, Fit("d", 0.01, 0.1, 0.0, 0.05))
    assert wrong == ["Q8_0: d has 0.000 of the adapter's change, not 1 ± 0.050"]


def test_a_merge_that_cannot_be_told_at_all_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    faint = Fit("b", 0.01, 0.1, 1.0, 2.0)

    def look(_: Subject) -> Finding:
        return merge_finding(monkeypatch, faint)

    gate = judge(Probe("merge", "precision", (), "export", look), subject(Path("/tmp")))
    assert gate.status == "not_run" and "too small to be told" in gate.reason


LENGTHS = st.lists(
    st.tuples(st.integers(1, 20), st.integers(1, 60)).map(
        lambda pair: Encoded(tuple(range(pair[0] + pair[1])), pair[0])
    ),
    min_size=1,
    max_size=12,
)


@given(sequences=LENGTHS, most=st.integers(0, 400))
def test_shortened_texts_keep_their_prompts_and_the_bound(
    sequences: list[Encoded], most: int
) -> None:
    kept = shortened(sequences, most)
    positions = [len(each.ids) - each.target_start for each in kept]
    assert sum(positions) <= most and all(positions)
    for each in kept:
        assert any(s.ids[: len(each.ids)] == each.ids for s in sequences)
    whole = sum(len(each.ids) - each.target_start for each in sequences)
    assert sum(positions) == min(most, whole)


class FakeScorer:
    """Log-probabilities that a file's name decides: the wider the type, the nearer to the base."""

    def __init__(self, path: Path) -> None:
        self.noise = {WIDE: 0.0, "Q8_0": 0.1, "Q4_K_M": 1.0}[path.stem.split("-")[-1]]

    def facts(self) -> dict[str, int]:
        return {"n_vocab": VOCABULARY}

    def score(self, sequences: Sequence[Encoded], keep: Path) -> list[Any]:
        count = sum(len(each.ids) - each.target_start for each in sequences)
        random = np.random.default_rng(0)
        logits = random.standard_normal((count, VOCABULARY))
        logits += self.noise * random.standard_normal(logits.shape)
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        logs.astype(np.float32).tofile(keep)
        return []

    def close(self) -> None: ...


def measures(tmp_path: Path, made: list[tuple[str, ...]], known: Mapping[str, Any]) -> Measures:
    """Of a run with two files; what is made for it is noted in `made`."""
    (tmp_path / "tokenizer.json").write_text(tokenizer_json())
    model = tmp_path / "model.safetensors"
    model.write_bytes(bytes(8))
    run = exported_run(tmp_path / "run", demo(), {"Q8_0": model, "Q4_K_M": model})

    def make(folder: Path, types: Sequence[str], *, tuned: bool) -> dict[str, Path]:
        made.append(("tuned" if tuned else "base", *types))
        return {type: folder / f"x-{type}" for type in types}

    part = RunPart(
        recipe=demo(),
        run=run,
        base=SimpleNamespace(config={"vocab_size": VOCABULARY}, shards=lambda: [model]),  # type: ignore[arg-type]
        encoder=Encoder(tmp_path / "tokenizer.json", FORMAT),
        make=make,
        rows=[{"question": "2 + 2?", "reasoning": "Two and two.", "answer": f"{n}"} for n in "45"],
        emit=silent,
    )
    files = {type: tmp_path / f"x-{type}" for type in ("Q8_0", "Q4_K_M")}
    for path in files.values():
        path.touch()
    folder = tmp_path / f"scratch{len(made)}"
    return Measures(part, files, FakeScorer, 512, folder, known)  # type: ignore[arg-type]


def test_a_narrower_type_costs_more_and_every_model_is_held_against_one_reference(
    tmp_path: Path,
) -> None:
    made: list[tuple[str, ...]] = []
    asked = measures(tmp_path, made, {})
    wide, narrow = asked.tuned("Q8_0"), asked.tuned("Q4_K_M")
    assert 0 < wide.kl < narrow.kl and wide.same_top > narrow.same_top
    assert made == [("tuned", WIDE)]
    assert asked.baseline("Q8_0") == wide
    assert made == [("tuned", WIDE), ("base", "Q8_0", "Q4_K_M", WIDE)]
    asked.close()
    assert not (tmp_path / "scratch0").exists()


def test_the_base_is_measured_once_and_again_only_where_something_changed(tmp_path: Path) -> None:
    made: list[tuple[str, ...]] = []
    first = measures(tmp_path, made, {})
    cost = first.baseline("Q4_K_M")
    assert len(made) == 1
    again = measures(tmp_path, made, first.kept())
    assert again.baseline("Q4_K_M") == cost and len(made) == 1
    other = measures(tmp_path, made, {**first.kept(), "key": "that of another base"})
    assert other.baseline("Q4_K_M") == cost and len(made) == 2


def test_the_key_changes_with_the_texts_and_the_settings(tmp_path: Path) -> None:
    asked = measures(tmp_path, [], {})
    others = [measures(tmp_path, [], {}) for _ in range(2)]
    others[0].part = replace(asked.part, rows=asked.part.rows[:1])
    others[1].part = replace(asked.part, recipe=demo("export.tensor_types=['ffn=Q8_0']"))
    keys = {asked.key, measures(tmp_path, [], {}).key}
    assert len(keys) == 1
    for other in others:
        assert other.key not in keys


def test_texts_that_do_not_fit_the_context_are_not_scored(tmp_path: Path) -> None:
    asked = measures(tmp_path, [], {})
    asked.n_ctx = 8
    with pytest.raises(PipeError, match="No held-out row fits"):
        len(asked.sequences)
