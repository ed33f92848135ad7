"""A Llama-shaped base and an adapter small enough to check by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pipeline.gguf.llama import Llama

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 40,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}

_ROWS = {"q": 32, "k": 16, "v": 16, "o": 32, "gate": 64, "up": 64, "down": 32}
_COLUMNS = {"down": 64}


def shape_of(name: str) -> tuple[int, ...]:
    """The shape that CONFIG gives a checkpoint tensor."""
    if "norm" in name:
        return (32,)
    if "embed" in name:
        return (40, 32)
    projection = name.split(".")[-2].removesuffix("_proj")
    return _ROWS[projection], _COLUMNS.get(projection, 32)


def write_base(folder: Path) -> Path:
    """config.json and F16 weights, seeded."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    random = np.random.default_rng(0)
    weights = {
        name: random.standard_normal(shape_of(name)).astype(np.float16)
        for name, _ in Llama.from_config(CONFIG).names()
    }
    save_file(weights, folder / "model.safetensors")
    return folder


def write_adapter(folder: Path, *, columns: int = 32, zero: bool = False, **config: Any) -> Path:
    """A rank-2 adapter on q_proj."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    random = np.random.default_rng(1)
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    b = np.zeros((32, 2)) if zero else random.standard_normal((32, 2))
    tensors = {
        f"{stem}.lora_A.weight": random.standard_normal((2, columns)).astype(np.float32),
        f"{stem}.lora_B.weight": b.astype(np.float32),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
