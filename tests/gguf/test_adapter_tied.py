"""Tied embeddings: one tensor while both modules hold the same one, else two."""

from pathlib import Path

import pytest

from pipeline.gguf.weights import Checkpoint
from tests.gguf.peft_cases import (
    EMBEDDING,
    HEAD,
    STEM,
    check,
    delta,
    load,
    lora,
    random,
    weight,
    write_base,
    write_peft,
)


@pytest.fixture
def tied(tmp_path: Path) -> Checkpoint:
    return write_base(tmp_path / "base", tied=True)


def test_lora_on_a_tied_output_gives_it_weights_of_its_own(
    tied: Checkpoint, tmp_path: Path
) -> None:
    folder = write_peft(tmp_path / "a", lora(HEAD))
    expected = weight(tied, EMBEDDING) + 3.0 * delta(lora(HEAD), HEAD)
    check(tied, folder, {f"{HEAD}.weight": expected}, tied=True)
    adapter = load(folder, tied, tied=True)
    assert adapter.own_head and adapter.changes[f"{HEAD}.weight"].source == f"{EMBEDDING}.weight"


def test_an_output_keeps_the_weights_that_a_tied_embedding_leaves(
    tied: Checkpoint, tmp_path: Path
) -> None:
    new = random(40, 24, seed=7)
    tensors = {f"{STEM}{EMBEDDING}.weight": new}
    folder = write_peft(tmp_path / "a", tensors, modules_to_save=["embed_tokens"])
    expected = {f"{EMBEDDING}.weight": new, f"{HEAD}.weight": weight(tied, EMBEDDING)}
    check(tied, folder, expected, tied=True)
    assert load(folder, tied, tied=True).own_head


def test_copies_saved_of_both_tied_embeddings_stay_one_where_they_are_the_same(
    tied: Checkpoint, tmp_path: Path
) -> None:
    """As ensure_weight_tying saves them."""
    new = random(40, 24, seed=7)
    tensors = {f"{STEM}{name}.weight": new for name in (EMBEDDING, HEAD)}
    folder = write_peft(tmp_path / "a", tensors, modules_to_save=["embed_tokens"])
    check(tied, folder, {f"{EMBEDDING}.weight": new}, tied=True)
    other = tensors | {f"{STEM}{HEAD}.weight": random(40, 24, seed=8)}
    folder = write_peft(tmp_path / "b", other, modules_to_save=["embed_tokens"])
    check(tied, folder, {name.removeprefix(STEM): v for name, v in other.items()}, tied=True)


@pytest.mark.parametrize("both", [True, False])
def test_a_resized_tied_embedding_stays_tied(tied: Checkpoint, tmp_path: Path, both: bool) -> None:
    new = random(48, 24, seed=7)
    tensors = {f"{STEM}{EMBEDDING}.weight": new} | ({f"{STEM}{HEAD}.weight": new} if both else {})
    folder = write_peft(tmp_path / "a", tensors)
    check(tied, folder, {f"{EMBEDDING}.weight": new}, tied=True)
    adapter = load(folder, tied, tied=True)
    assert adapter.rows == 48 and not adapter.own_head


def test_tokens_trained_on_a_tied_embedding_stay_tied(tied: Checkpoint, tmp_path: Path) -> None:
    tensors = {f"{STEM}{EMBEDDING}.token_adapter.trainable_tokens_delta": random(1, 24, seed=7)}
    folder = write_peft(tmp_path / "a", tensors, trainable_token_indices=[3])
    adapter = load(folder, tied, tied=True)
    assert set(adapter.changes) == {f"{EMBEDDING}.weight"} and not adapter.own_head
