"""The merge gate against files written here by llama.cpp's own package and its own permutation."""

import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.quants import quantize
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from pipeline.check import merge
from pipeline.check.merge import Fit, fit
from pipeline.check.tensors import Stored, Weights, saved_tensors
from pipeline.engines.gguf_file import read_gguf
from pipeline.gguf import kernels
from tests.support.tiny_gguf import finished

F32 = NDArray[np.float32]
HEADS, KV_HEADS, HIDDEN = 4, 2, 128
CONFIG = {"num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "num_hidden_layers": 1}
LAYER = "model.layers.0"
SHAPES = {
    f"{LAYER}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
    f"{LAYER}.self_attn.k_proj.weight": (HIDDEN // 2, HIDDEN),
    f"{LAYER}.mlp.down_proj.weight": (HIDDEN, 2 * HIDDEN),
    "model.embed_tokens.weight": (96, HIDDEN),
    "model.norm.weight": (HIDDEN,),
}
CHANGED = [name for name in SHAPES if "proj" in name]
NAMES = {
    f"{LAYER}.self_attn.q_proj.weight": "blk.0.attn_q.weight",
    f"{LAYER}.self_attn.k_proj.weight": "blk.0.attn_k.weight",
    f"{LAYER}.mlp.down_proj.weight": "blk.0.ffn_down.weight",
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}


def permute(weights: F32, heads: int) -> F32:
    """LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    return (
        weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
        .swapaxes(1, 2)
        .reshape(weights.shape)
    )


@pytest.fixture(scope="module")
def base() -> dict[str, F32]:
    random = np.random.default_rng(1)
    return {n: random.standard_normal(s).astype(np.float32) * 0.02 for n, s in SHAPES.items()}


@pytest.fixture(scope="module")
def deltas() -> dict[str, F32]:
    """Rank 4, a twentieth of the weights' size."""
    random = np.random.default_rng(2)
    return {
        name: (
            random.standard_normal((SHAPES[name][0], 4))
            @ random.standard_normal((4, SHAPES[name][1]))
        ).astype(np.float32)
        * 0.0005
        for name in CHANGED
    }


def written(folder: Path, tensors: Mapping[str, F32], type: str, *, permuted: bool = True) -> Path:
    path = folder / "model.gguf"
    kind = gguf.GGMLQuantizationType[type]
    writer = gguf.GGUFWriter(path, "llama")
    for name, values in tensors.items():
        heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2])
        stored = permute(values, heads) if heads and permuted else values
        if values.ndim == 1:
            writer.add_tensor(NAMES[name], stored)
        else:
            writer.add_tensor(NAMES[name], quantize(stored, kind), raw_dtype=kind)
    return finished(writer, path)


def fits_of(
    folder: Path, base: Mapping[str, F32], deltas: Mapping[str, F32], path: Path
) -> dict[str, Fit]:
    shard = folder / "model.safetensors"
    save_file(dict(base), shard)
    weights, stored = Weights([shard], CONFIG), Stored(read_gguf(path))
    names = {theirs: ours for ours, theirs in NAMES.items()}
    return {
        theirs: fit(stored, stored.tensors[theirs], weights, deltas.get(ours))
        for theirs, ours in names.items()
    }


def faults(fits: Mapping[str, Fit]) -> dict[str, str]:
    return {name: fault for name, each in fits.items() if (fault := each.fault())}


@pytest.mark.parametrize("type", ["F16", "BF16", "Q8_0", "Q5_1", "Q4_0"])
def test_a_merged_file_has_the_whole_change_in_every_tensor(
    tmp_path: Path, base: dict[str, F32], deltas: dict[str, F32], type: str
) -> None:
    merged = {name: values + deltas.get(name, 0) for name, values in base.items()}
    fits = fits_of(tmp_path, base, deltas, written(tmp_path, merged, type))
    assert faults(fits) == {}
    told = {name for name, each in fits.items() if each.coefficient is not None}
    assert told == {NAMES[name] for name in CHANGED}
    assert all(each.tells for each in fits.values())


@pytest.mark.parametrize("type", ["F16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize(
    ("times", "said"), [(0.0, "0.0"), (2.0, "2.0"), (0.5, "0.5"), (-1, "-1.0")]
)
def test_a_change_that_is_missing_doubled_halved_or_reversed_is_named(
    tmp_path: Path, base: dict[str, F32], deltas: dict[str, F32], type: str, times: float, said: str
) -> None:
    merged = {name: values + times * deltas.get(name, 0) for name, values in base.items()}
    found = faults(fits_of(tmp_path, base, deltas, written(tmp_path, merged, type)))
    assert set(found) == {NAMES[name] for name in CHANGED}
    share = float(found["blk.0.ffn_down.weight"].split(" has ")[1].split()[0])
    assert abs(share - float(said)) < 0.1


def test_one_tensor_left_out_of_the_merge_is_the_one_named(
    tmp_path: Path, base: dict[str, F32], deltas: dict[str, F32]
) -> None:
    left = f"{LAYER}.self_attn.k_proj.weight"
    merged = {n: v + (0 if n == left else deltas.get(n, 0)) for n, v in base.items()}
    found = faults(fits_of(tmp_path, base, deltas, written(tmp_path, merged, "Q8_0")))
    assert set(found) == {"blk.0.attn_k.weight"}


def test_rows_in_the_checkpoint_s_order_are_not_the_file_s(
    tmp_path: Path, base: dict[str, F32], deltas: dict[str, F32]
) -> None:
    merged = {name: values + deltas.get(name, 0) for name, values in base.items()}
    path = written(tmp_path, merged, "Q4_0", permuted=False)
    found = faults(fits_of(tmp_path, base, deltas, path))
    assert set(found) == {"blk.0.attn_q.weight", "blk.0.attn_k.weight"}
    assert "is not the base's tensor" in found["blk.0.attn_q.weight"]


def test_a_tensor_that_the_adapter_leaves_alone_must_be_the_base_s(
    tmp_path: Path, base: dict[str, F32], deltas: dict[str, F32]
) -> None:
    merged = {name: values + deltas.get(name, 0) for name, values in base.items()}
    merged["model.embed_tokens.weight"] = merged["model.embed_tokens.weight"][::-1].copy()
    merged["model.norm.weight"] = np.full(HIDDEN, np.nan, np.float32)
    found = faults(fits_of(tmp_path, base, deltas, written(tmp_path, merged, "Q8_0")))
    assert set(found) == {"token_embd.weight", "output_norm.weight"}


def test_a_change_below_the_noise_tells_nothing_and_is_no_fault(
    tmp_path: Path, base: dict[str, F32], deltas: dict[str, F32]
) -> None:
    faint = {name: delta * np.float32(1e-4) for name, delta in deltas.items()}
    found = fits_of(tmp_path, base, faint, written(tmp_path, base, "Q4_0"))
    assert not any(found[NAMES[name]].tells for name in CHANGED)
    assert faults(found) == {}


@pytest.mark.parametrize("type", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
@pytest.mark.parametrize(("times", "faulty"), [(1.0, False), (0.7, True)])
def test_k_quants_with_an_importance_matrix_may_shrink_the_change_a_little(
    tmp_path: Path, type: str, times: float, faulty: bool
) -> None:
    """Q2_K keeps 0.93 of this change, Q3_K 0.97: what no merge lost is no fault."""
    random = np.random.default_rng(4)
    shape, name = (256, 1024), f"{LAYER}.mlp.down_proj.weight"
    weights = (random.standard_normal(shape) * 0.02).astype(np.float32)
    delta = random.standard_normal((shape[0], 8)) @ random.standard_normal((8, shape[1]))
    delta = (0.006 * delta / delta.std()).astype(np.float32)
    importance = np.exp(1.5 * random.standard_normal(shape[1])).astype(np.float32)
    stored = kernels.quantize(type, weights + np.float32(times) * delta, importance)
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor(NAMES[name], stored, raw_dtype=gguf.GGMLQuantizationType[type])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file({name: weights}, tmp_path / "model.safetensors")
    file = Stored(read_gguf(path))
    base = Weights([tmp_path / "model.safetensors"], CONFIG)
    found = fit(file, file.tensors[NAMES[name]], base, delta)
    assert found.tells and (found.fault() is not None) == faulty


def test_a_few_rows_that_are_wrong_in_a_large_tensor_show(
    tmp_path: Path, base: dict[str, F32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "_CHUNK", 4 * HIDDEN)
    spoiled = dict(base)
    embedding = base["model.embed_tokens.weight"].copy()
    embedding[41:43] = embedding[[3, 7]]
    spoiled["model.embed_tokens.weight"] = embedding
    found = faults(fits_of(tmp_path, base, {}, written(tmp_path, spoiled, "Q4_0")))
    assert set(found) == {"token_embd.weight"}


def test_rows_of_tokens_never_trained_may_round_to_nothing(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    values = {n: random.standard_normal(s).astype(np.float32) * 0.02 for n, s in SHAPES.items()}
    values["model.embed_tokens.weight"][90:] *= np.float32(1e-12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "_CHUNK", HIDDEN)
        assert faults(fits_of(tmp_path, values, {}, written(tmp_path, values, "Q8_0"))) == {}


@given(heads=st.integers(1, 8), half=st.integers(1, 16))
def test_a_row_of_the_file_comes_from_where_llama_cpp_puts_it(heads: int, half: int) -> None:
    rows = heads * half * 2
    weights = Weights([], {**CONFIG, "num_attention_heads": heads})
    expected = permute(np.arange(rows, dtype=np.float32)[:, None], heads)[:, 0]
    assert weights.order("blk.0.attn_q.weight", rows).tolist() == expected.tolist()
    assert weights.order("blk.0.attn_v.weight", rows).tolist() == list(range(rows))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_saved_tensors_are_read_as_safetensors_wrote_them(tmp_path: Path, dtype: type) -> None:
    values = np.random.default_rng(3).standard_normal((6, 5)).astype(dtype)
    path = tmp_path / "model.safetensors"
    save_file({"a": values, "b": values[0].copy()}, path, metadata={"format": "pt"})
    found = saved_tensors([path])
    assert (found["a"].at(np.array([4, 1])) == values[[4, 1]].astype(np.float32)).all()
    assert (found["b"].at(np.array([0])) == values[:1].astype(np.float32)).all()


def test_bf16_is_the_upper_half_of_a_float(tmp_path: Path) -> None:
    bits = np.array([[0x3F80, 0xC000, 0x0000, 0x7F80]], np.uint16)
    header = {"x": {"dtype": "BF16", "shape": [1, 4], "data_offsets": [0, 8]}}
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bits.tobytes())
    found = saved_tensors([path])["x"].at(np.array([0]))
    assert found.tolist() == [[1.0, -2.0, 0.0, np.inf]]
