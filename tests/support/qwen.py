"""Qwen2 and Qwen3 in small: a byte-level BPE with ChatML's tokens, and bases drawn by a seed."""

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer, models
from tokenizers.normalizers import NFC
from tokenizers.processors import ByteLevel

from tests.support.tokenizer import PATTERN as LLAMA3_PATTERN
from tests.support.tokenizer import learn_bytes

Family = Literal["qwen2", "qwen3"]

PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_pad|>")
TEXTUAL = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_pad|>", "<|file_sep|>")
"""Added tokens that are not special, of Qwen2.5 and later."""
TAGS = ("<tool_response>", "</tool_response>", "<think>", "</think>")
"""More of them, Qwen3's."""
LINES = (
    "<think>\nTwo and two is four.\n</think>\n\nThe answer is 4.\n\n",
    "<think>\n\n</think>\n\nThere are 12 pens in the box.\n\n",
    "system\nuser\nassistant\nim_start im_end endoftext vision_pad fim_prefix tool_call",
    "How many coins does Tom have now? Dan finds 7 more and sells 3. He has 10 + 20 = 30.\r\n\r\n",
)


def added(family: Family) -> tuple[str, ...]:
    return SPECIALS + TEXTUAL + (TAGS if family == "qwen3" else ())


@cache
def tokenizer_json(family: Family) -> str:
    """`tokenizer.json` of some 400 tokens, added ones last: no BOS, text in NFC."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = NFC()
    learn_bytes(tokenizer, PATTERN, LINES)
    for name in added(family):
        token = AddedToken(name, special=name in SPECIALS, normalized=False)
        add = tokenizer.add_special_tokens if name in SPECIALS else tokenizer.add_tokens
        add([token])
    tokenizer.post_processor = ByteLevel(trim_offsets=False)
    return str(tokenizer.to_str())


def write_tokenizer(folder: Path, family: Family) -> Path:
    """The files of the tokenizer, as the published models have them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json(family), encoding="utf-8")
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "model_max_length": 1024,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_base(folder: Path, family: Family, *, tied: bool, seed: int = 0) -> Path:
    """A base of random bf16 weights: Qwen2 with biases on q, k and v, Qwen3 with head norms.

    Its embedding has more rows than the tokenizer has tokens, as theirs have.
    """
    import torch
    from transformers import AutoModelForCausalLM

    write_tokenizer(folder, family)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(folder, family, tied))
        for name, parameter in model.named_parameters():
            if name.endswith((".bias", "_norm.weight")):
                parameter.data += 0.1 * torch.randn_like(parameter)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def _config(folder: Path, family: Family, tied: bool) -> Any:
    from transformers import Qwen2Config, Qwen3Config

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    shape: dict[str, Any] = {
        "vocab_size": -(-size // 32) * 32 + 32,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": tied,
        # an output that can be as sure as it must: logits grow with the embedding's norm
        "initializer_range": 0.1,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
    }
    if family == "qwen2":
        return Qwen2Config(**shape, rope_theta=1_000_000.0)
    # wider than hidden / heads, as Qwen3-0.6B's
    return Qwen3Config(**shape, head_dim=64, rope_theta=1_000_000.0)
