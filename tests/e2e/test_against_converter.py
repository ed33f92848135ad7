"""Our files in llama.cpp itself: the same tokens as `tokenizers`, the same logits as Transformers.

Each family with a tokenizer of our own, whose vocabulary llama.cpp's converter does not know.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGUFWriter

from pipeline.gguf.adapter_file import AdapterFile
from pipeline.gguf.models import (
    ControlTokens,
    Description,
    License,
    Vocabulary,
    architecture_of,
    describe,
)
from pipeline.gguf.models.pretokenizer import QWEN2_SPLIT
from pipeline.gguf.weights import Checkpoint, load_adapter
from tests.support.tokenizer import tokenizer_json

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]

ODD = (
    "", " ", "\n", "  \n\n \t x", "Hello world", "I'LL we've 'S don't", "1 12 123 1234 12345.678",
    "a1b22c333", "naïve café Ünïcödé", "日本語 текст עברית हिन्दी", "🦙🏽‍🚀 ✅🚀",
    "\u200d\ufe0f\xa0x",
    "<|eot_id|>x<|begin_of_text|>", "<|eot_id", "<think>\nyes\n</think>\n\nThe answer is 4.",
    "tab\there\r\nand\rthere\n", "x" * 300, "...!!!???---", "\\n \\t",
    "for i in range(10):\n    pass",
)  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
YARN |= {"original_max_position_embeddings": 64, "attention_factor": 1.3}
ROWS = 416
LENGTH = 160
"""Tokens: beyond the 64 that the scalings begin from."""
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    name: str
    family: str
    config: dict[str, Any]

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("llama", "Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    Case("llama with biases", "Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 32}),
    Case("qwen2 with yarn", "Qwen2", {"rope_parameters": YARN, "tie_word_embeddings": True}),
    Case("qwen3", "Qwen3", {"head_dim": 32}),
]


def qwen_form(tokenizer: dict[str, Any]) -> None:
    """Qwen's split, its normaliser and no first token."""
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": QWEN2_SPLIT}
    tokenizer["model"]["ignore_merges"] = False
    tokenizer["normalizer"] = {"type": "NFC"}
    tokenizer["post_processor"] = {"type": "ByteLevel", "add_prefix_space": False}
    tokenizer["post_processor"] |= {"trim_offsets": False, "use_regex": False}


def write_model(folder: Path, case: Case) -> Any:
    """A checkpoint of random fp32 weights with its tokenizer; returns the model."""
    import torch
    import transformers

    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": ROWS}
    shape |= {"max_position_embeddings": 1024}
    config = getattr(transformers, f"{case.family}Config")(**shape | case.config)
    model = getattr(transformers, f"{case.family}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            values.copy_(torch.randn_like(values) * 0.3 + ("norm" in name))
    model.save_pretrained(folder)
    tokenizer = json.loads(tokenizer_json())
    if case.family != "Llama":
        qwen_form(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|eot_id|>"}))
    return model


def write_gguf(folder: Path) -> Path:
    """The checkpoint in `folder` as an F32 GGUF, by the parts under test."""
    model = architecture_of(json.loads((folder / "config.json").read_text()))
    base = Checkpoint(sorted(folder.glob("*.safetensors")))
    vocabulary = Vocabulary.read(folder, model.vocab)
    writer = GGUFWriter(folder / "model.gguf", model.gguf_name)
    describe(writer, Description("tiny", License("MIT"), "100K"), 0)
    for part in (model, vocabulary, ControlTokens.of_folder(vocabulary, folder)):
        part.add_to(writer)
    for placed in model.tensors(base):
        values = base.read(placed.source).float32()
        order = model.row_order(placed.name, len(values))
        writer.add_tensor(placed.name, values if order is None else values[order])
    for name, values in model.extra_tensors().items():
        writer.add_tensor(name, values)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file):
        write()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "model.gguf"


def in_llama_cpp(model: Path, ids: list[int], **options: Any) -> F64:
    """Log-probabilities [tokens, vocabulary]."""
    from llama_cpp import Llama

    fp32 = {"type_k": 0, "type_v": 0, "n_ctx": 256, "n_threads": 1, "logits_all": True}
    engine = Llama(str(model), verbose=False, **fp32, **options)
    try:
        engine.eval(ids)
        return log_softmax(np.array(engine.scores[: len(ids)], np.float64))
    finally:
        engine.close()


def in_torch(model: Any, ids: list[int]) -> F64:
    import torch

    with torch.no_grad():
        return log_softmax(model(torch.tensor([ids])).logits[0].double().numpy())


def log_softmax(logits: F64) -> F64:
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: F64 = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def divergence(wanted: F64, found: F64) -> float:
    """Mean KL divergence in nats."""
    return float((np.exp(wanted) * (wanted - found)).sum(axis=1).mean())


def some_ids() -> list[int]:
    return [int(number) for number in np.random.default_rng(0).integers(0, 380, LENGTH)]


@pytest.mark.parametrize("case", CASES[::2] + CASES[3:], ids=str)
def test_llama_cpp_tokenizes_as_tokenizers_does(tmp_path: Path, case: Case) -> None:
    from llama_cpp import Llama
    from tokenizers import Tokenizer

    write_model(tmp_path, case)
    engine = Llama(str(write_gguf(tmp_path)), vocab_only=True, verbose=False)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    adds_bos = case.family == "Llama"
    try:
        for text in ODD:
            found = engine.tokenize(text.encode(), add_bos=True, special=True)
            assert found == tokenizer.encode(text).ids, repr(text)
            plain = tokenizer.encode(text, add_special_tokens=False).ids
            assert engine.tokenize(text.encode(), add_bos=False, special=True) == plain
            assert engine.detokenize(plain, special=True).decode() == text, repr(text)
        assert engine.n_vocab() == ROWS
        assert engine.tokenize(b"", add_bos=True) == ([engine.token_bos()] if adds_bos else [])
        assert engine.token_eos() == tokenizer.token_to_id("<|eot_id|>")
    finally:
        engine.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_llama_cpp_computes_as_transformers_does(tmp_path: Path, case: Case) -> None:
    """Names, the order of rows, biases, norms and every key of the RoPE are in this number."""
    model = write_model(tmp_path, case)
    ids = some_ids()
    wanted, found = in_torch(model, ids), in_llama_cpp(write_gguf(tmp_path), ids)
    assert divergence(wanted, found) < 1e-6
    assert (wanted.argmax(axis=1) == found.argmax(axis=1)).mean() > 0.99


LORA: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": dict,
    "rsLoRA": lambda: {"use_rslora": True},
    "patterns": lambda: {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"k_proj": 3}},
    "embeddings": lambda: {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
}


@pytest.mark.parametrize("kind", LORA)
def test_an_adapter_file_in_llama_cpp_computes_as_peft_does(tmp_path: Path, kind: str) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
    config = LoraConfig(**{"r": 8, "lora_alpha": 16, "target_modules": linear, **LORA[kind]()})
    model = get_peft_model(write_model(base, CASES[1]), config)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "lora_" in name:
                values.copy_(torch.randn_like(values) * 0.1)
    model.save_pretrained(adapter)
    values = json.loads((base / "config.json").read_text())
    changes = load_adapter(adapter, Checkpoint(base.glob("*.safetensors")), values).changes
    about = Description("adapter", License("MIT"), "1K")
    AdapterFile(tmp_path / "adapter.gguf", changes, architecture_of(values), about).write()
    ids, path = some_ids(), write_gguf(base)
    wanted = in_torch(model.eval(), ids)
    found = in_llama_cpp(path, ids, lora_path=str(tmp_path / "adapter.gguf"))
    assert divergence(wanted, found) < 1e-6
    assert divergence(wanted, in_llama_cpp(path, ids)) > 1e-3
