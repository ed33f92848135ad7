"""What an adapter changes, by numpy's arithmetic."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipeError
from pipeline.gguf.weights import Checkpoint
from tests.gguf.peft_cases import (
    DOWN,
    EMBEDDING,
    HEAD,
    NORM,
    SHAPES,
    STEM,
    Q,
    check,
    delta,
    load,
    lora,
    merged,
    random,
    tensors_of,
    weight,
    write_base,
    write_peft,
)

# --- what changes


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_lora_adds_its_scaled_product(tmp_path: Path, dtype: type) -> None:
    base = write_base(tmp_path / "base", dtype=dtype)
    folder = write_peft(tmp_path / "a")
    change = 3.0 * delta(tensors_of(folder), Q)
    check(base, folder, {f"{Q}.weight": weight(base, Q) + change})


def test_rslora_scales_by_the_root_of_the_rank(base: Checkpoint, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "a", use_rslora=True)
    change = 6 / math.sqrt(2) * delta(tensors_of(folder), Q)
    check(base, folder, {f"{Q}.weight": weight(base, Q) + change})


@pytest.mark.parametrize(
    ("ranks", "alphas", "scale"),
    [
        ({"q_proj": 3}, {}, 6 / 3),
        ({"self_attn.q_proj": 3}, {".*": 4}, 4 / 3),
        ({r"^model\.layers\.0\..*q_proj": 3}, {"proj": 9, "[qk]_proj": 12}, 12 / 3),
        ({"layers.0.self_attn.q_proj": 3, "q_proj": 5}, {"_proj": 1}, 6 / 3),
    ],
)
def test_patterns_match_as_in_peft(
    base: Checkpoint, tmp_path: Path, ranks: Any, alphas: Any, scale: float
) -> None:
    """The first key that is the module's name or its end after a dot, as a regular expression."""
    tensors = lora(Q, rank=3) | lora(DOWN)
    folder = write_peft(tmp_path / "a", tensors, rank_pattern=ranks, alpha_pattern=alphas)
    found = merged(base, load(folder, base))[f"{Q}.weight"]
    expected = weight(base, Q) + scale * delta(tensors, Q)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: name.removeprefix(STEM),
        lambda name: name.replace(".weight", ".default.weight"),
        lambda name: name.replace(".weight", ".my-adapter.weight"),
    ],
)
def test_names_are_read_with_and_without_prefix_and_adapter(
    base: Checkpoint, tmp_path: Path, rename: Any
) -> None:
    folder = write_peft(tmp_path / "a", {rename(name): value for name, value in lora().items()})
    check(base, folder, {f"{Q}.weight": weight(base, Q) + 3.0 * delta(lora(), Q)})


@pytest.mark.parametrize("suffix", ["", ".weight", ".default.weight"])
def test_dora_gives_each_row_its_magnitude(base: Checkpoint, tmp_path: Path, suffix: str) -> None:
    magnitude = np.abs(random(16, seed=3)) + 1
    tensors = lora() | {f"{STEM}{Q}.lora_magnitude_vector{suffix}": magnitude}
    folder = write_peft(tmp_path / "a", tensors, use_dora=True)
    whole = weight(base, Q) + 3.0 * delta(tensors, Q)
    norms = np.linalg.norm(whole, axis=1)
    check(base, folder, {f"{Q}.weight": whole * (magnitude / norms)[:, None]})


def test_modules_to_save_replace_weights_biases_and_norms(base: Checkpoint, tmp_path: Path) -> None:
    new = {f"{Q}.weight": random(16, 24, seed=7), f"{Q}.bias": random(16, seed=7)}
    new[f"{NORM}.weight"] = random(24, seed=7)
    tensors = {STEM + name: value for name, value in new.items()}
    folder = write_peft(tmp_path / "a", tensors, modules_to_save=["self_attn", "norm"])
    check(base, folder, new)


def test_trained_tokens_replace_their_rows(base: Checkpoint, tmp_path: Path) -> None:
    rows = random(3, 24, seed=7)
    tensors = {f"{STEM}{EMBEDDING}.token_adapter.trainable_tokens_delta": rows}
    folder = write_peft(tmp_path / "a", tensors, trainable_token_indices=[30, 2, 17])
    expected = weight(base, EMBEDDING)
    expected[[30, 2, 17]] = rows
    check(base, folder, {f"{EMBEDDING}.weight": expected})


@given(st.data())
def test_trained_tokens_may_be_any_and_rows_come_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, 39), min_size=1, max_size=40, unique=True))
    rows = random(len(ids), 24, seed=7)
    tmp_path = tmp_path_factory.mktemp("tokens")
    base = write_base(tmp_path / "base")
    tensors = {f"{STEM}{EMBEDDING}.token_adapter.trainable_tokens_delta": rows}
    folder = write_peft(tmp_path / "a", tensors, trainable_token_indices={"embed_tokens": ids})
    change = load(folder, base).changes[f"{EMBEDDING}.weight"]
    expected = weight(base, EMBEDDING)
    expected[ids] = rows
    asked = np.array(data.draw(st.lists(st.integers(0, 39), max_size=50)), np.int64)
    found = change.apply(base.read(f"{EMBEDDING}.weight").float32(asked), asked)
    assert np.array_equal(found, expected[asked])


def test_embedding_lora_is_transposed(base: Checkpoint, tmp_path: Path) -> None:
    a, b = random(2, 40, seed=5), random(24, 2, seed=5)
    stem = f"{STEM}{EMBEDDING}"
    tensors = {f"{stem}.lora_embedding_A": a, f"{stem}.lora_embedding_B": b}
    tensors[f"{stem}.base_layer.weight"] = weight(base, EMBEDDING)
    folder = write_peft(tmp_path / "a", tensors)
    check(base, folder, {f"{EMBEDDING}.weight": weight(base, EMBEDDING) + 3.0 * (b @ a).T})


def test_biases_are_replaced_and_the_bias_of_b_is_added_scaled(
    base: Checkpoint, tmp_path: Path
) -> None:
    bias, added = random(16, seed=5), random(16, seed=6)
    tensors = lora() | {f"{STEM}{Q}.base_layer.bias": bias, f"{STEM}{Q}.lora_B.bias": added}
    folder = write_peft(tmp_path / "a", tensors, bias="lora_only", lora_bias=True)
    expected = weight(base, Q) + 3.0 * delta(tensors, Q)
    check(base, folder, {f"{Q}.weight": expected, f"{Q}.bias": bias + 3 * added})


@pytest.mark.parametrize("rows", [48, 33])
def test_resized_embeddings_bring_their_rows(base: Checkpoint, tmp_path: Path, rows: int) -> None:
    new = {f"{name}.weight": random(rows, 24, seed=n) for n, name in enumerate((EMBEDDING, HEAD))}
    folder = write_peft(tmp_path / "a", {STEM + name: value for name, value in new.items()})
    check(base, folder, new)
    adapter = load(folder, base)
    assert adapter.rows == rows and not adapter.own_head
    assert all(change.source is None for change in adapter.changes.values())


def test_what_is_saved_as_the_base_has_it_changes_nothing(base: Checkpoint, tmp_path: Path) -> None:
    """save_embedding_layers often saves unchanged embeddings, here in another type."""
    head = weight(base, HEAD)
    tensors = lora() | {
        f"{STEM}{HEAD}.weight": head,
        f"{STEM}{Q}.bias": base.read(f"{Q}.bias").bits,
    }
    folder = write_peft(tmp_path / "a", tensors, bias="all")
    adapter = load(folder, base)
    assert set(adapter.changes) == {f"{Q}.weight"} and adapter.rows is None


def test_threads_may_apply_changes_at_once(base: Checkpoint, tmp_path: Path) -> None:
    magnitude = np.abs(random(16, seed=3)) + 1
    tensors = lora() | {f"{STEM}{Q}.lora_magnitude_vector": magnitude}
    change = load(write_peft(tmp_path / "a", tensors, use_dora=True), base).changes[f"{Q}.weight"]
    stored = base.read(f"{Q}.weight")
    expected = change.apply(stored.float32(), np.arange(16))

    def same(seed: int) -> bool:
        rows = np.random.default_rng(seed).integers(0, 16, 9)
        return np.array_equal(change.apply(stored.float32(rows), rows), expected[rows])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(same, range(200)))


# --- residual initialisations


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_16", "olora", "corda", "lora_ga", "loftq"])
@pytest.mark.parametrize("beside", [True, False])
def test_what_an_initialisation_took_from_the_base_is_taken_from_it(
    base: Checkpoint, tmp_path: Path, init: str, beside: bool
) -> None:
    folder, first = tmp_path / "run" / "adapter", lora(seed=11)
    name = f"{init.partition('_niter')[0]}_init"
    write_peft((folder.parent if beside else folder) / name, first, init_lora_weights=True)
    write_peft(folder, init_lora_weights=init)
    # loftq_init has no scale in it
    taken = (1.0 if init == "loftq" else 3.0) * delta(first, Q)
    expected = weight(base, Q) + 3.0 * delta(lora(), Q) - taken
    check(base, folder, {f"{Q}.weight": expected})


def test_dora_takes_its_norm_after_the_initialisation_is_undone(
    base: Checkpoint, tmp_path: Path
) -> None:
    magnitude = np.abs(random(16, seed=3)) + 1
    tensors = lora() | {f"{STEM}{Q}.lora_magnitude_vector": magnitude}
    options = {"use_dora": True, "init_lora_weights": "pissa"}
    folder = write_peft(tmp_path / "a", tensors, **options)
    write_peft(folder / "pissa_init", lora(seed=11), **options)
    whole = weight(base, Q) + 3.0 * (delta(tensors, Q) - delta(lora(seed=11), Q))
    scaled = whole * (magnitude / np.linalg.norm(whole, axis=1))[:, None]
    check(base, folder, {f"{Q}.weight": scaled})


def test_an_initial_adapter_that_does_not_belong_is_refused(
    base: Checkpoint, tmp_path: Path
) -> None:
    folder = write_peft(tmp_path / "a", init_lora_weights="pissa")
    write_peft(folder / "pissa_init", lora(rank=4), r=4)
    with pytest.raises(PipeError, match="other ranks or alphas"):
        load(folder, base)
    write_peft(folder / "pissa_init", lora(DOWN))
    with pytest.raises(PipeError, match=f"initial adapter lacks {Q}"):
        load(folder, base)
    write_peft(folder / "pissa_init", lora())
    with pytest.raises(PipeError, match="changes nothing"):
        load(folder, base)


# --- for the manifest


def test_the_summary_tells_what_was_merged(base: Checkpoint, tmp_path: Path) -> None:
    tensors = lora(rank=4) | lora(DOWN) | {f"{STEM}{NORM}.weight": random(24, seed=8)}
    options = {"rank_pattern": {"q_proj": 4}, "modules_to_save": ["norm"]}
    summary = load(write_peft(tmp_path / "a", tensors, **options), base).summary
    assert json.loads(json.dumps(summary)) == {
        "methods": ["LoRA", "whole tensors"],
        "ranks": [2, 4],
        "alphas": [6],
        "tensors": 3,
    }


def test_shapes_are_known_before_anything_is_computed(base: Checkpoint, tmp_path: Path) -> None:
    tensors = lora() | lora(DOWN) | {f"{STEM}{NORM}.weight": random(24, seed=8)}
    for name, change in load(write_peft(tmp_path / "a", tensors), base).changes.items():
        assert change.shape == SHAPES[name]
