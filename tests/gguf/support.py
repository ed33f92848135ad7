"""A Llama-shaped base and an adapter small enough to check by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pipeline.base import base_at
from pipeline.gguf.merged import Merged
from pipeline.gguf.models import architecture_of
from tests.support.tokenizer import tokenizer_json

VOCAB = 500
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": VOCAB,
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
EMBEDDING = "model.embed_tokens.weight"
_MODULES = (
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
    "self_attn.o_proj", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj",
    "mlp.down_proj",
)  # fmt: skip
Q = "model.layers.0.self_attn.q_proj.weight"
V = "model.layers.0.self_attn.v_proj.weight"


def write_base(folder: Path, **config: Any) -> Path:
    """config.json, a tokenizer and seeded F16 weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "tokenizer.json").write_text(tokenizer_json())
    model = architecture_of(CONFIG | config)
    random = np.random.default_rng(0)
    stored = [EMBEDDING, "model.norm.weight", *(["lm_head.weight"] if not model.tied else [])]
    for layer in range(model.layers):
        for module in _MODULES:
            stored.append(f"model.layers.{layer}.{module}.weight")
    weights = {
        name: random.standard_normal(model.shape_of(name)).astype(np.float16) for name in stored
    }
    save_file(weights, folder / "model.safetensors")
    return folder


def write_adapter(folder: Path, **config: Any) -> Path:
    """A rank-2 adapter on the first layer's q_proj."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    random = np.random.default_rng(1)
    stem = f"base_model.model.{Q.removesuffix('.weight')}"
    tensors = {
        f"{stem}.lora_A.weight": random.standard_normal((2, 256)).astype(np.float32),
        f"{stem}.lora_B.weight": random.standard_normal((256, 2)).astype(np.float32),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def merged(base: Path, adapter: Path | None = None) -> Merged:
    return Merged.open(base_at(base), adapter)
