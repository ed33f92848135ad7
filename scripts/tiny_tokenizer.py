"""The tokenizer of the tiny base: byte-level BPE in the form of Llama 3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tiny_corpus import BOS, EOT, PAD, SPECIAL_TOKENS, TAGS, Corpus
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import ByteLevel as ByteLevelProcessor
from tokenizers.processors import Sequence as ProcessorSequence
from tokenizers.processors import TemplateProcessing

VOCABULARY_SIZE = 640

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pre-tokenizer of Llama 3, which llama.cpp knows as `llama-bpe`."""

# Llama 3's shape in its messages; without its date line and tools, which the corpus does not have.
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{%- endif %}"
)


def tokenizer_lines(corpus: Corpus, documents: int = 20_000) -> Iterator[str]:
    """Text to train the tokenizer on: the corpus without control tokens and tags, and boosts.

    Tags are left out because a merge such as `<n` would leave no bare `<` for `<think>`, which the
    pre-tokenizer splits into `<think` and `>`.
    """
    stream = corpus.documents(len)
    for _ in range(documents):
        text = next(stream)
        for special in SPECIAL_TOKENS:
            text = text.replace(special, "\0")
        for tag in TAGS:
            text = text.replace(f"<{tag}>", "\0").replace(f"</{tag}>", "\0")
        yield from text.split("\0")
    for _ in range(10_000):
        yield from ("think", "</", ">\n", ">\n\n", "user", "assistant", "system", "\n\n")
    for _ in range(1_000):
        yield from map(str, range(10, 100))


def train_tokenizer(corpus: Corpus, size: int = VOCABULARY_SIZE) -> Tokenizer:
    """A byte-level BPE with the Llama 3 pattern, in a form that llama.cpp reproduces exactly."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tokenizer_lines(corpus), trainer)
    # Added last, so that the specials follow the ordinary tokens as they do in Llama 3.
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    tokenizer.post_processor = ProcessorSequence(
        [
            ByteLevelProcessor(trim_offsets=False),
            TemplateProcessing(
                single=f"{BOS} $A",
                pair=f"{BOS} $A {BOS} $B",
                special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
            ),
        ]
    )
    check_tokenizer(tokenizer)
    return tokenizer


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Raise ValueError unless the texts that a small model must handle are whole tokens."""
    whole = ["think", "<", "</", ">\n", ">\n\n", *SPECIAL_TOKENS, *map(str, range(10, 100))]
    broken = [
        text for text in whole if len(tokenizer.encode(text, add_special_tokens=False).ids) != 1
    ]
    if broken:
        raise ValueError(f"not single tokens: {broken}")
    tags = tokenizer.encode("<think>\n</think>\n\n<think>\n\n", add_special_tokens=False).tokens
    expected = ["<", "think", ">Ċ", "</", "think", ">ĊĊ", "<", "think", ">ĊĊ"]
    if tags != expected:
        raise ValueError(f"the reasoning tags are split as {tags}")


def write_tokenizer(tokenizer: Tokenizer, out: Path) -> None:
    """Write tokenizer.json, and a configuration that any recent transformers reads alike."""
    tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "bos_token": BOS,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": EOT,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 16384,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (out / "tokenizer_config.json").write_text(text, encoding="utf-8")
