"""A small byte-level BPE in Llama 3's form, and a base folder around it, built in code."""

import json
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import ByteLevel, Sequence, TemplateProcessing

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|reserved_special_token_0|>",
)
LINES = (
    "<think>\nTwo and two is four.\n</think>\n\nThe answer is 4.\n\n",
    "<think>\n\n</think>\n\nThere are 12 pens in the box.\n\n",
    "system user assistant begin_of_text start_header_id end_header_id eot_id reserved",
    "How many apples does Ana have now? It is 10 + 20 = 30.\r\n\r\n",
)


def learn_bytes(tokenizer: Tokenizer, pattern: str, lines: tuple[str, ...]) -> None:
    """Byte-level BPE of 400 tokens over the pieces that `pattern` cuts."""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines * 4, trainer)


@cache
def tokenizer_json() -> str:
    """`tokenizer.json` of 400-odd tokens; control tokens last, BOS added by its post-processor."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    learn_bytes(tokenizer, PATTERN, LINES)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    bos = SPECIALS[0]
    tokenizer.post_processor = Sequence(
        [
            ByteLevel(trim_offsets=False),
            TemplateProcessing(
                single=f"{bos} $A",
                pair=f"{bos} $A {bos} $B",
                special_tokens=[(bos, tokenizer.token_to_id(bos))],
            ),
        ]
    )
    return str(tokenizer.to_str())


def write_base(folder: Path) -> Path:
    """A base that `open_base` takes: configuration, tokenizer, one safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    weights = len(header).to_bytes(8, "little") + header + bytes(4)
    (folder / "model.safetensors").write_bytes(weights)
    return folder
