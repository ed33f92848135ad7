"""Divergences: which tokens are scored, what is made once, and what is kept."""

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
from pipeline.check.measure import WIDE, Cost, Measures, windows
from pipeline.check.part import RunPart
from pipeline.errors import PipeError
from pipeline.run import describe, silent
from tests.check.fakes import FORMAT
from tests.support.exported import demo, exported_run
from tests.support.tokenizer import tokenizer_json

VOCABULARY = 50
NAN = float("nan")

LENGTHS = st.lists(
    st.tuples(st.integers(1, 20), st.integers(1, 60)).map(
        lambda pair: Encoded(tuple(range(pair[0] + pair[1])), pair[0])
    ),
    min_size=1,
    max_size=12,
)


@given(sequences=LENGTHS, most=st.integers(0, 400))
def test_stretches_of_replies_keep_all_before_them_and_the_bound(
    sequences: list[Encoded], most: int
) -> None:
    kept = windows(sequences, most)
    positions = [len(each.ids) - each.target_start for each in kept]
    assert sum(positions) <= most and all(positions)
    for each in kept:
        assert any(
            s.ids[: len(each.ids)] == each.ids and each.target_start >= s.target_start
            for s in sequences
        )
    whole = sum(len(each.ids) - each.target_start for each in sequences)
    assert sum(positions) == min(most, whole)


def test_of_long_replies_the_first_the_middle_and_the_last_tokens_are_taken_in_turn() -> None:
    long = [Encoded(tuple(range(10 * n, 10 * n + 105)), 5) for n in range(4)]
    short = Encoded((1, 2, 3), 1)
    kept = windows([*long, short], 42)
    assert kept[-1] == short
    places = [(each.target_start, len(each.ids)) for each in kept[:-1]]
    assert places == [(5, 15), (50, 60), (95, 105), (5, 15)]


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
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "tokenizer.json").write_text(tokenizer_json())
    model = tmp_path / "model.safetensors"
    model.write_bytes(bytes(8))
    run = exported_run(tmp_path / "run", demo(), {"Q8_0": model, "Q4_K_M": model})

    def make(folder: Path, types: Sequence[str], *, tuned: bool) -> dict[str, Path]:
        made.append(("tuned" if tuned else "base", *types))
        return {type: folder / f"x-{type}" for type in types}

    base = SimpleNamespace(config={"vocab_size": VOCABULARY}, shards=lambda: [model])
    part = RunPart(
        recipe=demo(),
        run=run,
        trained=SimpleNamespace(base=base, device="cpu"),  # type: ignore[arg-type]
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
    others = [measures(tmp_path / str(n), [], {}) for n in range(3)]
    others[0].part = replace(asked.part, rows=asked.part.rows[:1])
    others[1].part = replace(asked.part, recipe=demo("export.tensor_types=['ffn=Q8_0']"))
    export = others[2].part.run.folder("export")
    manifest = others[2].part.run.require("export")
    (export / "importance.gguf").write_bytes(b"x")
    matrix = describe(export / "importance.gguf")
    outputs = {**manifest.outputs, "importance.gguf": matrix}
    replace(manifest, outputs=outputs).write(export)
    keys = {asked.key, measures(tmp_path, [], {}).key}
    assert len(keys) == 1
    for other in others:
        assert other.key not in keys


def test_a_cost_that_is_no_number_is_not_kept_for_the_next_check(tmp_path: Path) -> None:
    asked = measures(tmp_path, [], {})
    asked.baseline("Q8_0")
    asked.costs["Q4_K_M"] = Cost(NAN, NAN)
    assert set(asked.kept()["costs"]) == {"Q8_0"}
    assert "2 replies, whole" in asked.looked_at


def test_texts_that_do_not_fit_the_context_are_not_scored(tmp_path: Path) -> None:
    asked = measures(tmp_path, [], {})
    asked.n_ctx = 8
    with pytest.raises(PipeError, match="No held-out row fits"):
        len(asked.sequences)
