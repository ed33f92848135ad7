"""The three model families that are exported, and in what they differ."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipeError

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
FEED_FORWARD = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_QKV = ATTENTION[:3]


@dataclass(frozen=True)
class Family:
    """One `model_type` of Transformers and its architecture in llama.cpp."""

    gguf_name: str
    model_class: str
    """The class in config.json's `architectures`: the one with a language model's head."""
    rope_types: frozenset[str]
    """RoPE scalings that llama.cpp computes for it (src/models/*.cpp)."""
    biased: Callable[[Mapping[str, Any]], tuple[str, ...]]
    """Modules of a layer that have a bias. Raises PipeError where llama.cpp has no place for it."""
    head_norms: bool = False
    """Whether q and k are normalised for each head."""
    rotates_neighbours: bool = False
    """llama.cpp rotates neighbouring rows (LLAMA_ROPE_TYPE_NORM) where Transformers rotates a
    head's halves, so rows of q and k change places."""
    head_dim: int | None = None
    """Transformers' own head_dim where config.json names none; None is hidden / heads."""
    free_head_dim: bool = True
    """Whether llama.cpp takes a head_dim other than hidden / heads."""


def _llama_biased(config: Mapping[str, Any]) -> tuple[str, ...]:
    attention = ATTENTION if config.get("attention_bias") else ()
    return attention + (FEED_FORWARD if config.get("mlp_bias") else ())


def _qwen2_biased(config: Mapping[str, Any]) -> tuple[str, ...]:
    return _QKV


def _qwen3_biased(config: Mapping[str, Any]) -> tuple[str, ...]:
    if config.get("attention_bias"):
        raise PipeError(
            "The base is a Qwen3 with attention_bias, whose o_proj bias llama.cpp does not read.",
            "Export a Qwen3 without attention biases, as all the published ones are.",
        )
    return ()


_PLAIN = frozenset({"default", "linear", "yarn"})

FAMILIES = {
    "llama": Family(
        "llama", "LlamaForCausalLM", _PLAIN | {"llama3"}, _llama_biased, rotates_neighbours=True
    ),
    "qwen2": Family("qwen2", "Qwen2ForCausalLM", _PLAIN, _qwen2_biased, free_head_dim=False),
    "qwen3": Family(
        "qwen3", "Qwen3ForCausalLM", _PLAIN, _qwen3_biased, head_norms=True, head_dim=128
    ),
}
"""By config.json's `model_type`."""


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a config.json. Raises PipeError naming a model that is not exported."""
    kind = config.get("model_type")
    family = FAMILIES.get(str(kind))
    if family is None:
        raise PipeError(
            f"The base is a {kind}; exported are {', '.join(FAMILIES)}.",
            "Choose a base of one of these: pipe recipes",
        )
    classes = config.get("architectures") or [family.model_class]
    if list(classes) != [family.model_class]:
        raise PipeError(
            f"The base is a {', '.join(map(str, classes))}; exported is {family.model_class}.",
            "Name the language model itself, not one that classifies or embeds.",
        )
    _check_plain(config)
    return family


def _check_plain(config: Mapping[str, Any]) -> None:
    """Refuse what changes the computation and has no key in the file."""
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise PipeError(f"The base activates by {activation}; llama.cpp computes silu.")
    if "sliding_attention" in (config.get("layer_types") or ()) or config.get("use_sliding_window"):
        raise PipeError(
            "The base uses sliding window attention, which llama.cpp does not compute for it.",
            "Set use_sliding_window to false in config.json where it is never reached.",
        )
    if "quantization_config" in config:
        raise PipeError("The base is already quantized.", "Name the 16-bit model.")
