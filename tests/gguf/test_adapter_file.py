"""An adapter alone in GGUF: read back and added as llama.cpp adds it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import PipeError
from pipeline.gguf.adapter_file import AdapterFile
from pipeline.gguf.models import Architecture, Description, License, Origin, architecture_of
from pipeline.gguf.weights.changes import AddedBias, Change, Dora, LowRank, Replaced, TrainedRows
from pipeline.gguf.weights.checkpoint import Stored
from tests.gguf.test_models import LLAMA, QWEN3

F32 = npt.NDArray[np.float32]
UNTIED = LLAMA | {"tie_word_embeddings": False}
Q, K, V, DOWN = (
    f"model.layers.0.{module}.weight"
    for module in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj")
)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ABOUT = Description(
    name="adapter", license=License("MIT"), size_label="1.2B", base=Origin("Llama 3.2 1B")
)


def values(*shape: int, seed: int = 0) -> Stored:
    return Stored(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), "F32")


def pair(model: Architecture, source: str, rank: int, scale: float, seed: int = 0) -> LowRank:
    rows, columns = model.shape_of(source)
    return LowRank(values(rank, columns, seed=seed), values(rows, rank, seed=seed + 1), scale)


def change(source: str, *steps: Any) -> dict[str, Change]:
    return {source: Change(source, (1, 1), steps)}


def written(path: Path, changes: Mapping[str, Change], model: Architecture) -> dict[str, F32]:
    """What llama.cpp adds to each tensor: alpha / rank * B @ A (build_lora_mm, build_inp_embd)."""
    AdapterFile(path, changes, model, ABOUT).write()
    reader = GGUFReader(path)
    alpha = reader.fields["adapter.lora.alpha"].contents()
    assert alpha
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    added = {}
    for name in {name.rpartition(".")[0] for name in tensors}:
        a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        scale = np.float32(alpha) / np.float32(b.shape[1])
        added[name] = scale * ((a @ b.T) if name == "token_embd.weight" else (b @ a))
    return added


def expected(changes: Mapping[str, Change], model: Architecture) -> dict[str, F32]:
    """The changes themselves, with the rows where the model's own file has them."""
    found = {}
    for source, each in changes.items():
        name, (rows, columns) = model.names()[source], model.shape_of(source)
        order = model.row_order(name, rows)
        added = each.apply(np.zeros((rows, columns), np.float32), np.arange(rows))
        found[name] = added if order is None else added[order]
    return found


def assert_adds(path: Path, changes: Mapping[str, Change], config: dict[str, Any]) -> None:
    model = architecture_of(config)
    found, wanted = written(path, changes, model), expected(changes, model)
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("config", [LLAMA, QWEN3], ids=["llama", "qwen3"])
def test_the_file_adds_what_the_adapter_adds(tmp_path: Path, config: dict[str, Any]) -> None:
    model = architecture_of(config)
    changes: dict[str, Change] = {}
    for seed, source in enumerate((Q, K, V, DOWN)):
        changes |= change(source, pair(model, source, 4, 2.0, seed))
    assert_adds(tmp_path / "a.gguf", changes, config)


def test_embeddings_and_an_output_of_their_own_are_added_to(tmp_path: Path) -> None:
    model = architecture_of(UNTIED)
    both = change(EMBEDDING, pair(model, EMBEDDING, 4, 2.0)) | change(
        HEAD, pair(model, HEAD, 4, 2.0, 7)
    )
    assert_adds(tmp_path / "a.gguf", both, UNTIED)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.floats(-8, 8).filter(lambda scale: abs(scale) > 0.01)),
        min_size=3,
        max_size=3,
    )
)
def test_ranks_and_scales_of_their_own_come_out_right(
    tmp_path: Path, wishes: list[tuple[int, float]]
) -> None:
    """llama.cpp divides one alpha by each rank: rsLoRA and alpha patterns have other scales."""
    model = architecture_of(LLAMA)
    changes: dict[str, Change] = {}
    for source, (rank, scale) in zip((Q, V, DOWN), wishes, strict=True):
        changes |= change(source, pair(model, source, rank, scale))
    assert_adds(tmp_path / "a.gguf", changes, LLAMA)


def test_alpha_of_plain_lora_is_its_own_and_b_is_untouched(tmp_path: Path) -> None:
    model, step = architecture_of(QWEN3), pair(architecture_of(QWEN3), V, 8, 16 / 8)
    AdapterFile(tmp_path / "a.gguf", change(V, step), model, ABOUT).write()
    reader = GGUFReader(tmp_path / "a.gguf")
    assert reader.fields["adapter.lora.alpha"].contents() == 16.0
    a, b = reader.tensors
    assert (a.name, b.name) == ("blk.0.attn_v.weight.lora_a", "blk.0.attn_v.weight.lora_b")
    assert np.array_equal(a.data, step.a.bits) and np.array_equal(b.data, step.b.bits)
    assert list(a.shape) == [64, 8] and list(b.shape) == [8, 64]


def test_an_undone_initialisation_lies_in_the_same_pair(tmp_path: Path) -> None:
    """PiSSA: the first adapter is taken off, the trained one added."""
    model = architecture_of(LLAMA)
    both = change(Q, pair(model, Q, 4, -2.0, 3), pair(model, Q, 4, 2.0, 5))
    assert_adds(tmp_path / "a.gguf", both, LLAMA)


def test_16_bit_adapters_are_written_exactly(tmp_path: Path) -> None:
    bits = np.arange(16 * 64, dtype=np.uint16).reshape(16, 64) + 0x3F00
    step = LowRank(Stored(bits, "BF16"), values(64, 16), 1.0)
    AdapterFile(tmp_path / "a.gguf", change(V, step), architecture_of(QWEN3), ABOUT).write()
    a, _ = GGUFReader(tmp_path / "a.gguf").tensors
    assert np.array_equal(a.data, step.a.float32())


LOW = pair(architecture_of(UNTIED), V, 2, 1.0)
NAN = LowRank(Stored(np.full((2, 64), np.nan, np.float32), "F32"), values(64, 2), 1.0)


@pytest.mark.parametrize(
    ("changes", "config", "said"),
    [
        (change(V, Dora(LOW, values(64))), UNTIED, f"DoRA for {V}"),
        (change(V, Replaced(values(64, 64))), UNTIED, "a whole tensor"),
        (change(EMBEDDING, LOW, Replaced(values(500, 64))), UNTIED, "a whole tensor"),
        (
            change(EMBEDDING, TrainedRows(np.arange(2), np.arange(2), values(2, 64))),
            UNTIED,
            "trained tokens",
        ),
        (change(Q.replace("weight", "bias"), AddedBias(values(128), 1.0)), UNTIED, "q_proj.bias"),
        (change(EMBEDDING, LOW), LLAMA, "tied to the output"),
        (change(HEAD, LOW), LLAMA, r"changes lm_head\.weight, which"),
        (change("model.layers.9.mlp.up_proj.weight", LOW), UNTIED, r"changes model\.layers\.9"),
        (change(V, LowRank(LOW.a, LOW.b, 0.0)), UNTIED, "changes nothing"),
        ({}, UNTIED, "changes nothing"),
        (change(V, NAN), UNTIED, "attn_v.weight holds NaN"),
    ],
)
def test_what_an_adapter_file_cannot_hold_is_refused_and_leaves_nothing(
    tmp_path: Path, changes: Mapping[str, Change], config: dict[str, Any], said: str
) -> None:
    with pytest.raises(PipeError, match=said):
        AdapterFile(tmp_path / "a.gguf", changes, architecture_of(config), ABOUT).write()
    assert not list(tmp_path.iterdir())


def test_biases_of_a_model_that_has_them_are_named_as_such(tmp_path: Path) -> None:
    model = architecture_of(UNTIED | {"attention_bias": True})
    bias = change(Q.replace("weight", "bias"), AddedBias(values(128), 1.0))
    with pytest.raises(PipeError, match="LoRA biases"):
        AdapterFile(tmp_path / "a.gguf", bias, model, ABOUT).write()
