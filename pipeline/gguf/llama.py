"""A Llama in GGUF: tensor names and order, the rotary permutation, metadata, vocabulary.

Follows llama.cpp's convert_hf_to_gguf.py (conversion/llama.py and conversion/base.py).
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipeError
from pipeline.gguf.checkpoint import F32

_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class Llama:
    """The parts of config.json that the file needs."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    norm_eps: float
    tied: bool
    rope: dict[str, Any]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Llama":
        """Raises PipeError for a configuration that this writer cannot express."""
        rope = config.get("rope_parameters") or {
            "rope_theta": config.get("rope_theta", 10000.0),
            **(config.get("rope_scaling") or {}),
        }
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", "llama3"):
            raise PipeError(f"The base scales its RoPE by {kind}; default and llama3 are exported.")
        if config.get("attention_bias") or config.get("mlp_bias"):
            raise PipeError("The base has biases, which a GGUF Llama does not.")
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads", heads),
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocab=config["vocab_size"],
            context=config["max_position_embeddings"],
            norm_eps=config["rms_norm_eps"],
            tied=config.get("tie_word_embeddings", False),
            rope={**rope, "rope_type": kind},
        )

    def names(self) -> Iterator[tuple[str, str]]:
        """(checkpoint name, GGUF name), in layer order as llama.cpp's type rules count."""
        yield "model.embed_tokens.weight", "token_embd.weight"
        for layer in range(self.layers):
            for theirs, ours in _LAYER.items():
                yield f"model.layers.{layer}.{theirs}.weight", f"blk.{layer}.{ours}.weight"
        yield "model.norm.weight", "output_norm.weight"
        if not self.tied:
            yield "lm_head.weight", "output.weight"

    def permuted(self, gguf_name: str, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """q and k with each head's halves interleaved, as llama.cpp rotates them."""
        for suffix, heads in ((".attn_q.weight", self.heads), (".attn_k.weight", self.kv_heads)):
            if gguf_name.endswith(suffix):
                rows, columns = weight.shape
                halves = weight.reshape(heads, 2, rows // heads // 2, columns)
                return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, columns)
        return weight

    def rope_factors(self) -> F32 | None:
        """rope_freqs.weight of llama3 scaling, shape [head_dim / 2]; None without scaling."""
        if self.rope["rope_type"] != "llama3":
            return None
        factor = float(self.rope["factor"])
        low, high = float(self.rope["low_freq_factor"]), float(self.rope["high_freq_factor"])
        original = float(self.rope["original_max_position_embeddings"])
        theta = float(self.rope["rope_theta"])
        exponents = np.arange(0, self.head_dim, 2, dtype=np.float32) / self.head_dim
        factors = []
        for frequency in 1.0 / (theta**exponents):
            wavelength = 2 * math.pi / frequency
            if wavelength < original / high:
                factors.append(1.0)
            elif wavelength > original / low:
                factors.append(factor)
            else:
                smooth = (original / wavelength - low) / (high - low)
                factors.append(1 / ((1 - smooth) / factor + smooth))
        return np.array(factors, dtype=np.float32)


@dataclass(frozen=True)
class Vocabulary:
    """Byte-level BPE of the Llama 3 kind. `types` are llama.cpp's token types."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    ids: dict[str, int]

    @classmethod
    def read(cls, tokenizer_json: Path, rows: int) -> "Vocabulary":
        """From tokenizer.json, filled up to the embedding's `rows` with unique unused tokens.

        Raises PipeError when it is not the byte-level BPE that llama.cpp calls llama-bpe.
        """
        from gguf import TokenType

        try:
            description = json.loads(tokenizer_json.read_text(encoding="utf-8"))
            model = description["model"]
            ids: dict[str, int] = dict(model["vocab"])
        except (OSError, ValueError, KeyError) as error:
            raise PipeError(f"{tokenizer_json} cannot be read: {error}.") from None
        _check_llama_bpe(description, tokenizer_json)
        kinds = dict.fromkeys(ids.values(), TokenType.NORMAL)
        for token in description["added_tokens"]:
            ids[token["content"]] = token["id"]
            special = token["special"]
            kinds[token["id"]] = TokenType.CONTROL if special else TokenType.USER_DEFINED
        if max(ids.values()) >= rows:
            raise PipeError(f"The tokenizer has id {max(ids.values())}, the embedding {rows} rows.")
        by_id = {number: name for name, number in ids.items()}
        merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
        return cls(
            [by_id.get(i, f"[PAD{i}]") for i in range(rows)],
            [int(kinds.get(i, TokenType.UNUSED)) for i in range(rows)],
            merges,
            ids,
        )

    def id_of(self, token: str) -> int:
        """Raises PipeError where the tokenizer lacks a token that the chat format needs."""
        if token not in self.ids:
            raise PipeError(f"The tokenizer has no token {token}.", "Use a Llama 3 base.")
        return self.ids[token]


_LLAMA3_PATTERN_MARK = "\\p{N}{1,3}"


def _check_llama_bpe(description: dict[str, Any], path: Path) -> None:
    """Another split pattern would tokenize differently in llama.cpp, silently."""
    pattern = json.dumps(description.get("pre_tokenizer") or {}).replace("\\\\", "\\")
    if description["model"].get("type") != "BPE" or _LLAMA3_PATTERN_MARK not in pattern:
        raise PipeError(
            f"{path} is not a Llama 3 tokenizer, the only kind exported.", "Use a Llama 3 base."
        )
