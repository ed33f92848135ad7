"""`pipe plan` beside what really is: a training's peak, torch's counts, an exported file."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.assets import asset
from pipeline.gguf.models.architecture import HEAD
from pipeline.recipe.training import Lora
from pipeline.study.plan import catalogue, shape_of
from pipeline.study.plan.catalogue import Known
from pipeline.study.plan.disk import gguf_bytes
from pipeline.study.plan.memory import kept_values
from scripts.measure_plan import Point, measured
from tests.e2e.conftest import Demo

pytestmark = pytest.mark.e2e

TINY = asset("data/tiny-llama")
MIDDLING = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 32000,
}
"""154 million parameters: enough to be seen beside what Unsloth's import holds."""


def make_base(folder: Path) -> Path:
    """Random bf16 weights of MIDDLING's shape, with the shipped tokenizer."""
    folder.mkdir()
    config = json.loads((TINY / "config.json").read_text()) | MIDDLING
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, folder)
    draw = torch.Generator().manual_seed(0)
    weights = {
        tensor.name: torch.ones(tensor.shape)
        if len(tensor.shape) == 1
        else torch.randn(tensor.shape, generator=draw) * 0.02
        for tensor in shape_of(config).tensors
    }
    assert HEAD not in weights
    save_file(
        {name: tensor.bfloat16() for name, tensor in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def test_the_peak_of_a_real_training_above_the_bare_import_is_foreseen_within_15_percent(
    tmp_path: Path,
) -> None:
    found = measured(make_base(tmp_path / "base"), Point("lora", 1, 128), tmp_path / "work")
    assert found["bare_bytes"] > 5e8
    assert found["measured_bytes"]["step"] > 6e8
    assert abs(found["error"]) <= 0.15, found
    assert abs(found["step_error"]) <= 0.15, found


@pytest.mark.parametrize("known", [pytest.param(k, id=k.title) for k in catalogue().models])
def test_transformers_builds_as_many_parameters_on_the_meta_device(known: Known) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**known.config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == known.shape.parameters


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_layer_keeps_as_many_values_for_its_backward_pass_as_torch_saves(kind: str) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    values = {**MIDDLING, "num_hidden_layers": 4, "vocab_size": 512, "tie_word_embeddings": True}
    values |= {"model_type": kind, "max_position_embeddings": 512, "rms_norm_eps": 1e-6}
    setting = Point("lora", 2, 128).setting
    lora = LoraConfig(r=setting.lora.r, target_modules=list(Lora().target_modules))
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_config(AutoConfig.for_model(**values)), lora)
    saved = _saved_bytes(model, torch.randint(0, 512, (2, 128)))
    foreseen = 4 * setting.tokens * 4 * kept_values(shape_of(values), setting)
    # the last norm's input and output, and the angles of the positions, belong to no layer
    assert foreseen == pytest.approx(saved, rel=0.03) and foreseen <= saved


def _saved_bytes(model: Any, ids: torch.Tensor) -> int:
    """What the backward pass of all layers would read, but weights; no storage counts twice."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kept = model.base_model.model.model(input_ids=ids).last_hidden_state
    assert kept.requires_grad
    return sum(seen.values())


def test_planned_files_hold_the_bytes_that_the_export_wrote(demo: Demo) -> None:
    from gguf import GGUFReader

    shape = shape_of(json.loads((TINY / "config.json").read_text()))
    files = demo.run.require("export").facts["files"]  # other tests export the run otherwise
    assert files
    for type, name in files.items():
        path = demo.run.folder("export") / name
        tensors = path.stat().st_size - GGUFReader(path).data_offset
        # the last tensor is not padded
        assert 0 <= gguf_bytes(shape, type) - tensors < 32
