"""Bases of Llama 3.2's shapes with random weights, and an adapter: what the export is timed on."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SHAPES: dict[str, dict[str, Any]] = {
    "1B": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "head_dim": 64,
    },
    "3B": {
        "hidden_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "head_dim": 128,
    },
}
_COMMON = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "intermediate_size": 8192,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "dtype": "bfloat16", "hidden_act": "silu",
    "rope_theta": 500000.0, "attention_bias": False, "mlp_bias": False,
    "rope_scaling": {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}  # fmt: skip
RANK = 16


def build(folder: Path, shape: str, tokenizer: Path) -> tuple[Path, Path]:
    """The folders of a base and an adapter, made unless they are there."""
    base, adapter = folder / f"base-{shape}", folder / f"adapter-{shape}"
    config = {**_COMMON, **SHAPES[shape], **_ids(tokenizer)}
    if not (base / "config.json").exists():
        base.mkdir(parents=True, exist_ok=True)
        for path in tokenizer.parent.glob("tokenizer*.json"):
            shutil.copy(path, base)
        if not (base / "tokenizer_config.json").exists():
            words = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>"}
            words["eos_token"] = "<|eot_id|>"
            (base / "tokenizer_config.json").write_text(json.dumps(words))
        _write_base(base, config)
        (base / "config.json").write_text(json.dumps(config, indent=2))
    if not (adapter / "adapter_config.json").exists():
        adapter.mkdir(parents=True, exist_ok=True)
        _write_adapter(adapter, config)
    return base, adapter


def _ids(tokenizer: Path) -> dict[str, int]:
    added = json.loads(tokenizer.read_text(encoding="utf-8"))["added_tokens"]
    ids = {token["content"]: token["id"] for token in added}
    return {"bos_token_id": ids["<|begin_of_text|>"], "eos_token_id": ids["<|eot_id|>"]}


def _linears(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Module -> (outputs, inputs) of one layer."""
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    query, key = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    return {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def _write_base(folder: Path, config: dict[str, Any]) -> None:
    """Normal weights in bfloat16; a shard a layer."""
    hidden = config["hidden_size"]
    random = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.empty(size).normal_(0, 0.02, generator=random).bfloat16()

    ones = torch.ones(hidden, dtype=torch.bfloat16)
    where: dict[str, str] = {}
    parts = [{"model.embed_tokens.weight": normal(config["vocab_size"], hidden)}]
    parts[0]["model.norm.weight"] = ones
    for number in range(-1, config["num_hidden_layers"]):
        if number >= 0:
            layer = f"model.layers.{number}"
            tensors = {f"{layer}.{n}.weight": normal(*s) for n, s in _linears(config).items()}
            tensors[f"{layer}.input_layernorm.weight"] = ones.clone()
            tensors[f"{layer}.post_attention_layernorm.weight"] = ones.clone()
        else:
            tensors = parts.pop()
        shard = f"model-{number + 2:05d}-of-{config['num_hidden_layers'] + 1:05d}.safetensors"
        save_file(tensors, folder / shard, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, shard)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_adapter(folder: Path, config: dict[str, Any]) -> None:
    """LoRA of rank 16 on every projection, alpha 32."""
    random = torch.Generator().manual_seed(1)
    linears = _linears(config)
    tensors: dict[str, torch.Tensor] = {}
    for number in range(config["num_hidden_layers"]):
        for name, (outputs, inputs) in linears.items():
            stem = f"base_model.model.model.layers.{number}.{name}"
            a = torch.empty(RANK, inputs).normal_(0, 0.02, generator=random)
            b = torch.empty(outputs, RANK).normal_(0, 0.02, generator=random)
            tensors |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    words = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 32, "bias": "none",
        "target_modules": sorted(name.rpartition(".")[2] for name in linears),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(words, indent=2))
