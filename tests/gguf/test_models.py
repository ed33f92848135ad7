"""Architectures: names, order of tensors and rows, hyper-parameters; what is not exported."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from pipeline.errors import PipeError
from pipeline.gguf.models import Architecture, architecture_of, as_loaded
from pipeline.gguf.weights import Checkpoint

LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1,
    "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 500, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False, "rope_parameters": LLAMA3_ROPE,
}  # fmt: skip
QWEN2 = LLAMA | {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "head_dim": None,
    "use_sliding_window": False, "sliding_window": 32768, "layer_types": ["full_attention"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}  # fmt: skip
QWEN3 = QWEN2 | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32}
NORM = "model.norm.weight"
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
YARN |= {"original_max_position_embeddings": 1024}


def stored(model: Architecture) -> set[str]:
    return set(model.names())


def keys(*parts: Callable[[GGUFWriter], None], architecture: str = "llama") -> dict[str, Any]:
    writer = GGUFWriter(None, architecture)
    for part in parts:
        part(writer)
    return {key: value.value for key, value in writer.kv_data[0].items()}


def test_a_llama_has_these_tensors_in_the_order_of_its_layers() -> None:
    model = architecture_of(LLAMA)
    layer = "model.layers.0"
    assert [(t.source, t.name) for t in model.tensors(stored(model))] == [
        ("model.embed_tokens.weight", "token_embd.weight"),
        (f"{layer}.input_layernorm.weight", "blk.0.attn_norm.weight"),
        (f"{layer}.self_attn.q_proj.weight", "blk.0.attn_q.weight"),
        (f"{layer}.self_attn.k_proj.weight", "blk.0.attn_k.weight"),
        (f"{layer}.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
        (f"{layer}.self_attn.o_proj.weight", "blk.0.attn_output.weight"),
        (f"{layer}.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
        (f"{layer}.mlp.gate_proj.weight", "blk.0.ffn_gate.weight"),
        (f"{layer}.mlp.up_proj.weight", "blk.0.ffn_up.weight"),
        (f"{layer}.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
        ("model.norm.weight", "output_norm.weight"),
    ]


@pytest.mark.parametrize(
    ("config", "more"),
    [
        (QWEN2, {"attn_q.bias", "attn_k.bias", "attn_v.bias"}),
        (QWEN3, {"attn_q_norm.weight", "attn_k_norm.weight"}),
        (
            LLAMA | {"attention_bias": True},
            {"attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias"},
        ),
        (LLAMA | {"mlp_bias": True}, {"ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"}),
    ],
    ids=["qwen2", "qwen3", "llama with attention_bias", "llama with mlp_bias"],
)
def test_other_models_have_these_besides(config: dict[str, Any], more: set[str]) -> None:
    plain = set(architecture_of(LLAMA).names().values())
    assert set(architecture_of(config).names().values()) - plain == {f"blk.0.{x}" for x in more}


def test_layers_follow_one_another_by_number() -> None:
    model = architecture_of(LLAMA | {"num_hidden_layers": 12})
    layers = [int(t.name.split(".")[1]) for t in model.tensors(stored(model)) if "blk" in t.name]
    assert layers == sorted(layers) and set(layers) == set(range(12))


@pytest.mark.parametrize(
    ("tied", "own_head", "written"),
    [(True, False, False), (True, True, True), (False, False, True)],
)
def test_an_output_is_written_where_it_is_not_the_embedding(
    tied: bool, own_head: bool, written: bool
) -> None:
    model = architecture_of(LLAMA | {"tie_word_embeddings": tied})
    tensors = model.tensors(stored(model) | {"lm_head.weight"}, own_head=own_head)
    assert ("output.weight" in [t.name for t in tensors]) == written


def test_a_missing_and_a_foreign_tensor_are_named() -> None:
    model = architecture_of(LLAMA)
    with pytest.raises(PipeError, match=r"lack model\.norm\.weight"):
        model.tensors(stored(model) - {NORM})
    with pytest.raises(PipeError, match=r"hold model\.layers\.0\.mlp\.router\.weight"):
        model.tensors(stored(model) | {"model.layers.0.mlp.router.weight"})
    with pytest.raises(PipeError, match=r"hold model\.layers\.1\."):
        model.tensors(stored(architecture_of(LLAMA | {"num_hidden_layers": 2})))
    with pytest.raises(PipeError, match=r"lack lm_head\.weight"):
        architecture_of(LLAMA | {"tie_word_embeddings": False}).tensors(stored(model))


def test_computed_frequencies_that_old_checkpoints_hold_are_left_out() -> None:
    model = architecture_of(LLAMA)
    left = {"model.layers.0.self_attn.rotary_emb.inv_freq"}
    assert model.tensors(stored(model) | left) == model.tensors(stored(model))


@given(
    kv_heads=st.sampled_from([1, 2, 4]),
    half=st.integers(1, 40),
    name=st.sampled_from(["attn_q.weight", "attn_q.bias", "attn_k.weight", "attn_k.bias"]),
)
def test_rows_of_q_and_k_change_places_as_llama_cpps_converter_permutes_them(
    kv_heads: int, half: int, name: str
) -> None:
    model = architecture_of(LLAMA | {"num_key_value_heads": kv_heads, "head_dim": 2 * half})
    heads = 4 if "attn_q" in name else kv_heads
    weight = np.arange(heads * 2 * half * 3).reshape(-1, 3)
    permuted = (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
        .swapaxes(1, 2)
        .reshape(weight.shape)
    )
    order = model.row_order(f"blk.7.{name}", len(weight))
    assert order is not None and np.array_equal(weight[order], permuted)


def test_all_other_rows_stay_as_they_are_stored() -> None:
    llama, qwen2, qwen3 = map(architecture_of, (LLAMA, QWEN2, QWEN3))
    rotated = {"blk.0.attn_q.weight", "blk.0.attn_k.weight"}
    assert {n for n in llama.names().values() if n not in rotated and _moved(llama, n)} == set()
    assert not any(_moved(model, n) for model in (qwen2, qwen3) for n in model.names().values())


def _moved(model: Architecture, name: str) -> bool:
    return model.row_order(name, 128) is not None


def test_rows_that_do_not_fill_the_heads_are_an_error() -> None:
    with pytest.raises(PipeError, match=r"attn_k\.weight has 128 rows; 2 heads of 32 need 64"):
        architecture_of(LLAMA).row_order("blk.0.attn_k.weight", 128)


def test_shapes_follow_the_configuration() -> None:
    model = architecture_of(QWEN3).resized(512)
    shapes = {name.removeprefix("model.layers.0."): model.shape_of(name) for name in model.names()}
    assert shapes == {
        "model.embed_tokens.weight": (512, 64),
        "input_layernorm.weight": (64,),
        "self_attn.q_proj.weight": (128, 64),
        "self_attn.k_proj.weight": (64, 64),
        "self_attn.v_proj.weight": (64, 64),
        "self_attn.o_proj.weight": (64, 128),
        "self_attn.q_norm.weight": (32,),
        "self_attn.k_norm.weight": (32,),
        "post_attention_layernorm.weight": (64,),
        "mlp.gate_proj.weight": (128, 64),
        "mlp.up_proj.weight": (128, 64),
        "mlp.down_proj.weight": (64, 128),
        "model.norm.weight": (64,),
    }
    biased = architecture_of(LLAMA | {"attention_bias": True, "mlp_bias": True})
    assert biased.shape_of("model.layers.0.self_attn.q_proj.bias") == (128,)
    assert biased.shape_of("model.layers.0.mlp.down_proj.bias") == (64,)


def test_hyper_parameters_are_those_of_llama_cpps_converter() -> None:
    assert keys(architecture_of(LLAMA).add_to) == {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": 4096,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 128,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.freq_base": 500000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.attention.key_length": 32,
        "llama.attention.value_length": 32,
        "llama.vocab_size": 500,
        "llama.rope.dimension_count": 32,
    }


def test_what_a_configuration_leaves_out_is_what_transformers_takes() -> None:
    bare = {key: value for key, value in LLAMA.items() if key not in ("head_dim", "rms_norm_eps")}
    assert architecture_of(bare).head_dim == 16 and architecture_of(bare).norm_eps == 1e-6
    assert architecture_of(QWEN3 | {"head_dim": None}).head_dim == 128
    assert architecture_of(LLAMA | {"num_key_value_heads": None}).kv_heads == 4
    assert architecture_of(LLAMA | {"rope_parameters": None}).rope.theta == 10000.0


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LLAMA | {"model_type": "mistral"}, "is a mistral"),
        (LLAMA | {"model_type": "qwen3_moe"}, "is a qwen3_moe"),
        (LLAMA | {"model_type": "qwen2_5_vl"}, "is a qwen2_5_vl"),
        ({}, "is a None"),
        (LLAMA | {"architectures": ["LlamaForSequenceClassification"]}, "SequenceClassification"),
        (LLAMA | {"hidden_act": "gelu"}, "activates by gelu"),
        (LLAMA | {"quantization_config": {"bits": 4}}, "already quantized"),
        (QWEN2 | {"use_sliding_window": True}, "sliding window"),
        (QWEN3 | {"layer_types": ["sliding_attention"]}, "sliding window"),
        (QWEN3 | {"attention_bias": True}, "attention_bias"),
        (QWEN2 | {"head_dim": 32}, "4 heads of 32 for 64"),
        (LLAMA | {"num_key_value_heads": 3}, "4 heads of 32 over 3"),
        (LLAMA | {"head_dim": 15}, "heads of 15"),
        (LLAMA | {"hidden_size": None}, "no usable hidden_size"),
        (LLAMA | {"num_hidden_layers": "12"}, "no usable num_hidden_layers"),
        (LLAMA | {"rope_parameters": YARN | {"rope_type": "longrope"}}, "RoPE by longrope"),
        (LLAMA | {"rope_parameters": YARN | {"rope_type": "dynamic"}}, "RoPE by dynamic"),
        (LLAMA | {"rope_parameters": YARN | {"truncate": False}}, "truncate"),
        (LLAMA | {"rope_parameters": YARN | {"factor": None}}, "lacks factor"),
        (LLAMA | {"rope_parameters": YARN | {"partial_rotary_factor": 0.5}}, "a part of each head"),
        (LLAMA | {"rope_parameters": {"full_attention": LLAMA3_ROPE}}, "each kind of layer"),
        (QWEN2 | {"rope_parameters": LLAMA3_ROPE}, "RoPE by llama3"),
    ],
)
def test_what_is_not_exported_is_refused_by_name(config: dict[str, Any], said: str) -> None:
    with pytest.raises(PipeError, match=said):
        architecture_of(config)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": "x"},
        {"rope_parameters": [1]},
        {"rope_scaling": "linear"},
        {"rope_parameters": LLAMA3_ROPE | {"rope_type": ["llama3"]}},
        {"rope_parameters": LLAMA3_ROPE | {"rope_theta": "1e6"}},
        {"rope_parameters": LLAMA3_ROPE | {"factor": True}},
        {"rope_parameters": LLAMA3_ROPE | {"low_freq_factor": "1"}},
        {"rope_parameters": LLAMA3_ROPE | {"original_max_position_embeddings": [8192]}},
        {"rope_parameters": YARN | {"beta_fast": "32"}},
        {"rope_parameters": YARN | {"mscale": "0.5", "mscale_all_dim": 1.0}},
        {"rope_parameters": YARN | {"attention_factor": math.nan}},
        {"rope_parameters": None, "rope_theta": "500000"},
        {"rope_parameters": None, "rope_theta": 10**400},
        {"head_dim": "64"},
        {"head_dim": 32.0},
        {"head_dim": -32},
        {"num_key_value_heads": "2"},
        {"num_key_value_heads": [2]},
        {"num_hidden_layers": True},
        {"rms_norm_eps": "small"},
        {"rms_norm_eps": None},
        {"architectures": 5},
        {"layer_types": 5},
    ],
    ids=str,
)
def test_a_malformed_configuration_is_one_error_that_names_the_file_and_the_cure(
    change: dict[str, Any],
) -> None:
    with pytest.raises(PipeError, match=r"config\.json") as caught:
        keys(architecture_of(LLAMA | change).add_to)
    assert caught.value.hint


@pytest.mark.parametrize(("differs", "tied"), [(False, True), (True, False)])
def test_embeddings_that_are_stored_twice_are_tied_where_they_are_the_same(
    tmp_path: Path, differs: bool, tied: bool
) -> None:
    embedding = np.arange(12, dtype=np.float16).reshape(4, 3)
    head = embedding + np.float16(differs)
    save_file(
        {"model.embed_tokens.weight": embedding, "lm_head.weight": head}, tmp_path / "m.safetensors"
    )
    base = Checkpoint([tmp_path / "m.safetensors"])
    assert as_loaded(LLAMA, base) == json.loads(json.dumps(LLAMA)) | {"tie_word_embeddings": tied}
    untied = LLAMA | {"tie_word_embeddings": False}
    assert as_loaded(untied, base) == untied
