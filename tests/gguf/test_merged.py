"""The merge: W + scale * B @ A, rounded to the base's type, rows as llama.cpp rotates them."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipeline.errors import PipeError
from pipeline.gguf.merged import Merged, Slab
from tests.gguf.support import EMBEDDING, Q, V, merged, write_adapter, write_base


def whole(found: Merged, source: str) -> np.ndarray:
    """All rows of a tensor in fp32, read slab by slab."""
    parts = [found.read(slab).float32 for slab in found.slabs() if slab.weight.source == source]
    return np.concatenate(parts)


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's LlamaModel.permute (conversion/llama.py), as it is written there."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def test_the_adapter_is_added_scaled_rounded_and_permuted(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    weights = load_file(base / "model.safetensors")
    a, b = load_file(adapter / "adapter_model.safetensors").values()
    added = sum(b[:, k : k + 1] * a[k : k + 1] for k in range(2))
    expected = (weights[Q].astype(np.float32) + np.float32(2.0) * added).astype(np.float16)
    found = merged(base, adapter)
    assert np.array_equal(whole(found, Q), permuted(expected, 4).astype(np.float32))
    assert np.array_equal(whole(found, V), weights[V].astype(np.float32))
    key = V.replace("v_proj", "k_proj")
    assert np.array_equal(whole(found, key), permuted(weights[key], 2).astype(np.float32))


def test_slabs_cover_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = merged(write_base(tmp_path / "base"))
    complete = whole(found, Q)
    monkeypatch.setattr("pipeline.gguf.merged._SLAB", 256 * 7)
    cut = [slab for slab in found.slabs() if slab.weight.source == Q]
    assert [(slab.start, slab.stop) for slab in cut][-2:] == [(245, 252), (252, 256)]
    assert np.array_equal(np.concatenate([found.read(slab).float32 for slab in cut]), complete)


def test_bits_and_values_are_the_same_numbers(tmp_path: Path) -> None:
    found = merged(write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter"))
    for slab in found.slabs():
        values = found.read(slab)
        assert values.bits.shape == values.float32.shape
        if values.dtype == "F16":
            assert np.array_equal(values.bits.view(np.float16), values.float32)


def test_the_16_bit_shapes_keep_vectors_in_fp32(tmp_path: Path) -> None:
    shapes = {shape.name: shape for shape in merged(write_base(tmp_path / "base")).shapes()}
    assert shapes["token_embd.weight"].stored == "F16"
    assert shapes["blk.1.attn_norm.weight"].stored == "F32"
    assert shapes["rope_freqs.weight"].columns == 32
    assert "output.weight" not in shapes


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_in_the_base_stops_with_its_name(tmp_path: Path, value: float) -> None:
    base = write_base(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors[V][3, 5] = value
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(PipeError, match=f"{V} holds NaN or infinity"):
        whole(merged(base), V)


def test_a_merge_beyond_the_bases_type_stops_with_its_name(tmp_path: Path) -> None:
    """65504 is the largest F16: what the base's type cannot hold would be infinity."""
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "a", lora_alpha=300_000)
    with pytest.raises(PipeError, match=f"{Q} holds NaN or infinity"):
        whole(merged(base, adapter), Q)


def test_a_base_without_a_needed_tensor_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(PipeError, match=r"lack model\.norm\.weight"):
        merged(base)


def test_weights_of_another_shape_than_config_json_says_are_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors[EMBEDDING] = tensors[EMBEDDING][:, :128].copy()
    save_file(tensors, base / "model.safetensors")
    with pytest.raises(PipeError, match=rf"{EMBEDDING} is \[500, 128\]; config.json makes it"):
        merged(base)


def test_reading_is_the_same_from_any_row(tmp_path: Path) -> None:
    found = merged(write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter"))
    (weight,) = (weight for weight in found.weights if weight.source == Q)
    complete = whole(found, Q)
    for start, stop in ((0, 1), (31, 97), (255, 256)):
        assert np.array_equal(found.read(Slab(weight, start, stop)).float32, complete[start:stop])
