"""The model card of the tiny base."""

from __future__ import annotations

from pathlib import Path

CARD = """\
---
license: apache-2.0
language: en
pipeline_tag: text-generation
---
# tiny-llama: a synthetic base for quick runs on a CPU

A Llama of 1.9 million parameters, pretrained from random weights on text that a script wrote. It
stands in for Llama 3.2 where the whole pipeline has to run in minutes on a CPU. It holds no weights
of, and nothing distilled from, another model.

**Pretraining.** {tokens} tokens ({steps} steps) of plain problems with direct answers, equations,
lists of numbers and copying, as text and as chat in the Llama 3 layout, some with a system message
or two turns. In chats the loss is on the replies. **It saw no reasoning traces**, and the string
`<think>` never occurs in its text. No document holds the numbers and operations of a row of the
sample test file. `scripts/make_tiny_base.py` makes it again.

**What it can and cannot do.** Exact match of whole greedy replies on {count} fresh questions each,
with the weights as saved, computed in fp32:

| task | exact match |
| --- | --- |
{checks}

It knows a few hundred English words, whole numbers from 1 to 99 and texts of up to about 250 tokens
(longer positions were never trained). It answers nothing else. Problems with two or three changes
are what tuning on reasoning traces is to teach it.

**Architecture.** `LlamaForCausalLM`: hidden size 256, intermediate size 512, 3 layers, 4 heads of
64, 2 key/value heads, tied embeddings, RMSNorm epsilon 1e-5, RoPE of Llama 3 (theta 500000, factor
32, low 1, high 4, original length 8192), bf16. Byte-level BPE of 640 tokens with the Llama 3
pre-tokenizer and the literal names of its control tokens; `<|eot_id|>` ends a reply.

sha256 of `model.safetensors`: `{digest}`

Licence: Apache-2.0.
"""


def write_card(
    out: Path, steps: int, tokens: int, shares: dict[str, float], count: int, digest: str
) -> None:
    """Write README.md beside the weights, with the numbers measured on them."""
    checks = "\n".join(f"| {task} | {share:.1%} |" for task, share in shares.items())
    card = CARD.format(tokens=f"{tokens:,}", steps=steps, checks=checks, count=count, digest=digest)
    (out / "README.md").write_text(card, encoding="utf-8")
