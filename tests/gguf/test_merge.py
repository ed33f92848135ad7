"""The merge: W + scale * B @ A, in the base's type, and everything that must be refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, dequantize, quantize
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file, save_file

from pipeline.errors import PipeError
from pipeline.gguf.adapter import load_adapter
from pipeline.gguf.checkpoint import Checkpoint, to_bits
from pipeline.gguf.write import Merged
from tests.gguf.support import CONFIG, write_adapter, write_base

Q = "model.layers.0.self_attn.q_proj.weight"


def merged(base: Path, adapter: Path) -> Merged:
    return Merged.of(Checkpoint([base / "model.safetensors"]), load_adapter(adapter), CONFIG)


@given(arrays(np.float32, 8, elements=st.floats(width=32, allow_nan=False)))
def test_bf16_rounds_to_nearest_even_as_gguf_does(values: np.ndarray) -> None:
    expected = quantize(values.reshape(1, -1), GGMLQuantizationType.BF16).view(np.uint16)
    assert np.array_equal(to_bits(values, "BF16"), expected.ravel())


def test_the_adapter_is_added_scaled_and_rounded_to_the_bases_type(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    weights = load_file(base / "model.safetensors")
    lora = {
        name[-13:-7]: value
        for name, value in load_file(adapter / "adapter_model.safetensors").items()
    }
    b, a = lora["lora_B"], lora["lora_A"]
    expected = (weights[Q].astype(np.float32) + np.float32(2.0) * (b @ a)).astype(np.float16)
    found = merged(base, adapter)
    # an unpermuted name shows the merge alone
    assert np.array_equal(found.tensor(Q, "plain"), expected)
    untouched = Q.replace("q_proj", "v_proj")
    assert np.array_equal(found.tensor(untouched, "plain"), weights[untouched])


def test_rslora_scales_by_the_root_of_the_rank(tmp_path: Path) -> None:
    (delta,) = load_adapter(write_adapter(tmp_path / "a", use_rslora=True)).values()
    assert delta.scale == 4 / math.sqrt(2)


def test_q_and_k_are_permuted_as_llama_cpp_rotates_them(tmp_path: Path) -> None:
    found = merged(write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter"))
    plain, permuted = found.tensor(Q, "plain"), found.tensor(Q, "blk.0.attn_q.weight")
    for head in range(4):
        for pair in range(4):
            assert np.array_equal(permuted[head * 8 + 2 * pair], plain[head * 8 + pair])
            assert np.array_equal(permuted[head * 8 + 2 * pair + 1], plain[head * 8 + 4 + pair])


def test_rope_factors_follow_llama3_scaling() -> None:
    """High frequencies stay, low ones are stretched by the factor, between them it is smooth."""
    from pipeline.gguf.llama import Llama

    config = CONFIG | {"head_dim": 128}
    factors = Llama.from_config(config).rope_factors()
    assert factors is not None and factors.dtype == np.float32
    assert factors[0] == 1.0 and factors[-1] == 32.0
    assert (np.diff(factors) >= 0).all() and 1 < factors[32] < 32


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "initialised by pissa"),
        ({"init_lora_weights": "loftq"}, "initialised by loftq"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"bias": "all"}, "biases"),
        ({"peft_type": "IA3"}, "only LoRA"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises(PipeError, match=said):
        load_adapter(write_adapter(tmp_path / "a", **change))


def test_an_adapter_that_changes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PipeError, match="changes nothing"):
        load_adapter(write_adapter(tmp_path / "a", zero=True))


def test_an_adapter_of_another_base_is_an_error(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a", columns=48)
    with pytest.raises(PipeError, match=r"is \[32, 32\] there and \[32, 48\] in the adapter"):
        merged(write_base(tmp_path / "base"), adapter)


def test_infinity_in_a_merged_tensor_stops_with_its_name(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "a")
    tensors = load_file(adapter / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = np.inf
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(PipeError, match=f"{Q} holds NaN or infinity"):
        merged(base, adapter).tensor(Q, "plain")


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_torn_checkpoint_is_refused(tmp_path: Path, kept: int) -> None:
    shard = write_base(tmp_path / "base") / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(PipeError, match="not a whole safetensors"):
        Checkpoint([shard])


def test_a_base_without_a_needed_tensor_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(PipeError, match=r"lack model\.norm\.weight"):
        merged(base, write_adapter(tmp_path / "a"))


def test_bf16_values_are_read_exactly(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3e38, 1e-40], np.float32)
    bits = to_bits(values, "BF16")
    header = json.dumps({"x": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bits.tobytes())
    expected = dequantize(bits.view(np.uint8).reshape(1, -1), GGMLQuantizationType.BF16)
    assert np.array_equal(Checkpoint([path]).read("x").float32(), expected.ravel())
