"""Every reason to refuse an adapter, said with its name before any work."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.errors import PipeError
from pipeline.gguf.weights import Checkpoint
from tests.gguf.peft_cases import (
    DOWN,
    EMBEDDING,
    NORM,
    STEM,
    Q,
    Tensors,
    load,
    lora,
    random,
    write_peft,
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "ADALORA"}, "is a ADALORA adapter; only LoRA"),
        ({"peft_type": "IA3"}, "is a IA3 adapter; only LoRA"),
        ({"peft_type": None}, "is a None adapter; only LoRA"),
        ({"target_parameters": ["experts.down_proj"]}, "uses target_parameters"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "uses layer_replication"),
        ({"fan_in_fan_out": True}, "uses fan_in_fan_out"),
        ({"use_qalora": True}, "uses use_qalora"),
        ({"alora_invocation_tokens": [1]}, "uses alora_invocation_tokens"),
        ({"megatron_config": {"a": 1}}, "uses megatron_config"),
        ({"kasa_config": {"a": 1}}, "uses kasa_config"),
        ({"something_of_2027": "on"}, "uses something_of_2027"),
        ({"init_lora_weights": "pissa"}, "initialised by PiSSA, which changes the base"),
        ({"init_lora_weights": "pissa_niter_16"}, "initialised by PiSSA, which changes the base"),
        ({"init_lora_weights": "olora"}, "initialised by OLoRA, which changes the base"),
        ({"init_lora_weights": "corda"}, "initialised by CorDA, which changes the base"),
        ({"init_lora_weights": "loftq"}, "initialised by LoftQ, which changes the base"),
        ({"init_lora_weights": "lora_ga"}, "initialised by LoRA-GA, which changes the base"),
        ({"init_lora_weights": "new"}, "initialised by new, which export does not know"),
        ({"r": 0}, "a rank is no positive whole number"),
        ({"r": "16"}, "a rank is no positive whole number"),
        ({"r": 3}, r"A \[2, 24\] and B \[16, 2\], and rank 3"),
        ({"rank_pattern": {"q_proj": 4}}, "and rank 4"),
        ({"rank_pattern": {"(": 4}}, "cannot be used: missing"),
        ({"rank_pattern": "q_proj"}, "cannot be used"),
        ({"lora_alpha": math.nan}, "an alpha is no number"),
        ({"alpha_pattern": {"q_proj": None}}, "an alpha is no number"),
        ({"modules_to_save": "norm"}, "modules_to_save is no list"),
        ({"modules_to_save": ["norm"]}, f"lacks {NORM}.weight, which its modules_to_save names"),
        ({"trainable_token_indices": [-1]}, "holds no token ids"),
        ({"trainable_token_indices": [4, 4]}, "names a token twice"),
        ({"use_dora": True}, f"lacks lora_magnitude_vector of {Q}"),
    ],
)
def test_a_configuration_that_cannot_be_merged_is_refused_by_name(
    base: Checkpoint, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(PipeError, match=said):
        load(write_peft(tmp_path / "a", **change), base)


def test_harmless_and_empty_settings_are_no_reason_to_refuse(
    base: Checkpoint, tmp_path: Path
) -> None:
    options = {"fan_in_fan_out": False, "target_parameters": None, "something_of_2027": [],
               "eva_config": {"rho": 2.0}, "megatron_core": "megatron.core", "revision": "main",
               "layers_to_transform": [0], "lora_dropout": 0.1}  # fmt: skip
    for init in (True, False, "gaussian", "orthogonal", "eva", "mica"):
        folder = write_peft(tmp_path / "a", init_lora_weights=init, **options)
        assert set(load(folder, base).changes) == {f"{Q}.weight"}


def wrong(module: str, part: str, *shape: int) -> Tensors:
    return {f"{STEM}{module}.{part}": random(*shape)}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (wrong("model.layers.9.self_attn.q_proj", "lora_A.weight", 2, 24),
         "changes model.layers.9.self_attn.q_proj.weight, which the base lacks"),
        (wrong(Q, "lora_A.weight", 2, 24), f"lacks lora_B of {Q}"),
        (wrong(Q, "lora_B.weight", 16, 2), f"lacks lora_A of {Q}"),
        (wrong(EMBEDDING, "lora_embedding_B", 24, 2), f"lacks lora_embedding_A of {EMBEDDING}"),
        (lora() | wrong(Q, "lora_A.weight", 2, 25), r"is \[16, 24\] there and \[16, 25\]"),
        (lora() | wrong(Q, "lora_B.weight", 17, 2), r"is \[16, 24\] there and \[17, 24\]"),
        (lora() | wrong(Q, "lora_A.weight", 0), "no matrices"),
        (lora() | wrong(Q, "lora_B.bias", 16), "lora_B.bias, which a LoRA merge has no place for"),
        (lora() | wrong(Q, "lora_magnitude_vector", 16), "has no place for"),
        (lora() | wrong(Q, "lora_diag", 2), "q_proj.lora_diag, which a LoRA merge has no place"),
        (lora() | wrong("score", "weight", 2, 24), "changes score.weight, which the base lacks"),
        (lora() | wrong(NORM, "weight", 25), r"norm.weight is \[24\] there and \[25\]"),
        (lora() | wrong(Q, "base_layer.weight", 18, 24), r"is \[16, 24\] there and \[18, 24\]"),
        (lora() | wrong(DOWN, "bias", 24), "down_proj.bias, which the base lacks"),
        (lora() | wrong(EMBEDDING, "weight", 48, 25), r"is \[48, 24\] there and \[48, 25\]"),
        (lora() | wrong(EMBEDDING, "weight", 48, 24), "has 48 rows and lm_head.weight 40"),
        (wrong(EMBEDDING, "token_adapter.trainable_tokens_delta", 1, 24),
         r"trained tokens is \[0, 24\] there and \[1, 24\]"),
        ({**lora(), **{k.replace(".weight", ".b.weight"): v for k, v in lora(DOWN).items()},
          f"{STEM}{Q}.lora_magnitude_vector.a": random(16)}, "several adapters in one file: a, b"),
        ({**lora(), f"{STEM}{Q}.lora_A.default.weight": random(2, 24)}, "beside"),
        ({}, "changes nothing"),
        ({name: value * 0 for name, value in lora().items()}, "changes nothing"),
        ({name: value * ("lora_A" in name) for name, value in lora().items()}, "changes nothing"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_refused_by_name(
    base: Checkpoint, tmp_path: Path, tensors: Tensors, said: str
) -> None:
    with pytest.raises(PipeError, match=said):
        load(write_peft(tmp_path / "a", tensors), base)


@pytest.mark.parametrize("scale", [{"lora_alpha": 0}, {"alpha_pattern": {"q_proj": 0.0}}])
def test_an_adapter_whose_every_scale_is_zero_changes_nothing(
    base: Checkpoint, tmp_path: Path, scale: dict[str, Any]
) -> None:
    tensors = lora() | wrong(Q, "lora_B.bias", 16)
    with pytest.raises(PipeError, match="changes nothing"):
        load(write_peft(tmp_path / "a", tensors, lora_bias=True, **scale), base)
    beside = write_peft(tmp_path / "b", lora() | lora(DOWN), **{"alpha_pattern": {"q_proj": 0}})
    assert set(load(beside, base).changes) == {f"{DOWN}.weight"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["lora_A.weight", "lora_B.weight"])
def test_nan_or_infinity_is_refused_with_the_tensors_name(
    base: Checkpoint, tmp_path: Path, value: float, part: str
) -> None:
    tensors = lora()
    tensors[f"{STEM}{Q}.{part}"][1, 1] = value
    with pytest.raises(PipeError, match=f"{Q}.{part} holds NaN or infinity"):
        load(write_peft(tmp_path / "a", tensors), base)


def test_a_token_beyond_the_embedding_is_refused(base: Checkpoint, tmp_path: Path) -> None:
    tensors = {f"{STEM}{EMBEDDING}.token_adapter.trainable_tokens_delta": random(1, 24)}
    folder = write_peft(tmp_path / "a", tensors, trainable_token_indices=[40])
    with pytest.raises(PipeError, match=r"trains token 40; model.embed_tokens has 40 rows"):
        load(folder, base)


def test_dora_on_an_embedding_is_refused(base: Checkpoint, tmp_path: Path) -> None:
    stem = f"{STEM}{EMBEDDING}"
    tensors = {f"{stem}.lora_embedding_A": random(2, 40), f"{stem}.lora_embedding_B": random(24, 2)}
    tensors[f"{stem}.lora_magnitude_vector"] = random(24)
    with pytest.raises(PipeError, match="DoRA on an embedding"):
        load(write_peft(tmp_path / "a", tensors, use_dora=True), base)


def test_a_lora_bias_without_a_bias_in_the_base_is_refused(
    base: Checkpoint, tmp_path: Path
) -> None:
    tensors = lora(DOWN) | {f"{STEM}{DOWN}.lora_B.bias": random(24)}
    with pytest.raises(PipeError, match=r"down_proj.bias, which the base lacks"):
        load(write_peft(tmp_path / "a", tensors, lora_bias=True), base)


def test_a_pickle_is_never_opened(base: Checkpoint, tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "a")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(PipeError, match=r"adapter_model.bin, a pickle") as caught:
        load(folder, base)
    assert "safe_serialization=True" in caught.value.hint


def test_a_folder_of_several_adapters_names_them(base: Checkpoint, tmp_path: Path) -> None:
    for name in ("second", "first"):
        write_peft(tmp_path / "all" / name)
    with pytest.raises(PipeError, match="several adapters' folders") as caught:
        load(tmp_path / "all", base)
    assert "first, second" in caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", '{"peft_type": ', "\xff"])
def test_a_broken_configuration_is_refused(base: Checkpoint, tmp_path: Path, text: str) -> None:
    folder = write_peft(tmp_path / "a")
    (folder / "adapter_config.json").write_text(text, encoding="latin-1")
    with pytest.raises(PipeError, match="is no PEFT adapter"):
        load(folder, base)


def test_a_torn_adapter_is_refused(base: Checkpoint, tmp_path: Path) -> None:
    file = write_peft(tmp_path / "a") / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(PipeError, match="not a whole safetensors file"):
        load(tmp_path / "a", base)


def test_a_quantized_base_is_refused_where_the_adapter_changes_it(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    save_file({f"{Q}.weight": np.zeros((192, 1), np.uint8)}, folder / "model.safetensors")
    base = Checkpoint([folder / "model.safetensors"])
    with pytest.raises(PipeError, match=f"Tensor {Q}.weight of .* is U8"):
        load(write_peft(tmp_path / "a"), base)
