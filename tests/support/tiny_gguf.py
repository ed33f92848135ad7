"""A Llama 3 of random weights as a GGUF of 200 kB, written with llama.cpp's own package."""

import json
from pathlib import Path

import gguf
import numpy as np

from tests.support.tokenizer import SPECIALS, tokenizer_json

HIDDEN, LAYERS, HEADS, KV_HEADS, FFN, CONTEXT = 64, 2, 4, 2, 128, 2048
HEAD = HIDDEN // HEADS


def write_tiny_gguf(path: Path, chat_template: str, seed: int = 0) -> Path:
    """F16 weights drawn from `seed`, with the tokenizer of tests.support.tokenizer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    _add_shape(writer)
    tokens = _add_tokenizer(writer)
    writer.add_chat_template(chat_template)
    for name, array in _tensors(tokens, np.random.default_rng(seed)).items():
        writer.add_tensor(name, array)
    return finished(writer, path)


def finished(writer: gguf.GGUFWriter, path: Path) -> Path:
    """The whole file of what the writer was told."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_shape(writer: gguf.GGUFWriter) -> None:
    writer.add_name("tiny")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD)


def _add_tokenizer(writer: gguf.GGUFWriter) -> int:
    """Returns how many tokens there are."""
    description = json.loads(tokenizer_json())
    ids = dict(description["model"]["vocab"])
    ids |= {token["content"]: token["id"] for token in description["added_tokens"]}
    tokens = sorted(ids, key=ids.__getitem__)
    types = [
        gguf.TokenType.CONTROL if token in SPECIALS else gguf.TokenType.NORMAL for token in tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in description["model"]["merges"]])
    writer.add_bos_token_id(ids["<|begin_of_text|>"])
    writer.add_eos_token_id(ids["<|eot_id|>"])
    writer.add_pad_token_id(ids["<|finetune_right_pad_id|>"])
    writer.add_add_bos_token(True)
    writer.add_vocab_size(len(tokens))
    return len(tokens)


def _tensors(tokens: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Shapes as numpy has them, rows first; no `output.weight`: the embedding is tied."""

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns)) * 0.3).astype(np.float16)

    ones = np.ones(HIDDEN, np.float32)
    tensors = {"token_embd.weight": matrix(tokens, HIDDEN), "output_norm.weight": ones}
    for number in range(LAYERS):
        for name, array in {
            "attn_norm": ones,
            "attn_q": matrix(HIDDEN, HIDDEN),
            "attn_k": matrix(KV_HEADS * HEAD, HIDDEN),
            "attn_v": matrix(KV_HEADS * HEAD, HIDDEN),
            "attn_output": matrix(HIDDEN, HIDDEN),
            "ffn_norm": ones,
            "ffn_gate": matrix(FFN, HIDDEN),
            "ffn_up": matrix(FFN, HIDDEN),
            "ffn_down": matrix(HIDDEN, FFN),
        }.items():
            tensors[f"blk.{number}.{name}.weight"] = array
    return tensors
