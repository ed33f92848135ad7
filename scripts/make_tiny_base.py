"""Pretrain the tiny Llama base on a CPU and write it to `data/tiny-llama`.

The corpus is in `tiny_corpus.py`: plain problems with direct answers and much copying, and
no reasoning. Same seed, machine and number of threads: same weights.

    python scripts/make_tiny_base.py --out data/tiny-llama
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Threads that spin while they wait make training several times slower beside any other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from make_samples import Key, draw_story, held_out_keys
from tiny_card import write_card
from tiny_corpus import (
    BOS,
    END_HEADER,
    EOT,
    PAD,
    START_HEADER,
    Corpus,
    Turn,
    chat_text,
    header,
)
from tiny_muon import Muon
from tiny_tokenizer import train_tokenizer, write_tokenizer
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

BATCH_TOKENS, POOL = 3072, 1024
IGNORED = -100
MATRIX_RATE, OTHER_RATE = 4e-3, 3e-3
WARMUP_STEPS, DECAY_SHARE = 20, 0.4
CHECK_COUNT = 200


@dataclass(frozen=True)
class Run:
    """What one pretraining run is asked for."""

    steps: int
    seed: int
    checkpoints: Path | None
    check_every: int


def build_model(tokenizer: Tokenizer) -> LlamaForCausalLM:
    """A Llama of about 1.9 million parameters with one embedding row per token."""
    ids = {name: tokenizer.token_to_id(text) for name, text in (("b", BOS), ("e", EOT), ("p", PAD))}
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        # The scaled RoPE is defined for more than its original 8192 positions.
        max_position_embeddings=16384,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        bos_token_id=ids["b"],
        eos_token_id=ids["e"],
        pad_token_id=ids["p"],
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=ids["b"], eos_token_id=ids["e"], pad_token_id=ids["p"], do_sample=False
    )
    return model


def labels_of(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """Labels of one document: the replies of a chat, the results of equations, else all of it.

    Most of a question, or the numbers to be added, cannot be predicted: their loss is only noise.
    """
    start, end, eot, assistant, equals, newline = map(
        tokenizer.token_to_id, (START_HEADER, END_HEADER, EOT, "assistant", "=", "Ċ")
    )
    is_chat, is_equations = start in ids, equals in ids
    labels, supervised = [], not (is_chat or is_equations)
    for index, token in enumerate(ids):
        labels.append(token if supervised else IGNORED)
        if not is_chat:
            supervised = (supervised or token == equals) and not (is_equations and token == newline)
        elif token == eot:
            supervised = False
        # The header is <start> role <end> and a blank line.
        elif index >= 3 and ids[index - 3] == start and ids[index - 1] == end:
            supervised = ids[index - 2] == assistant
    return labels


def batches(corpus: Corpus, tokenizer: Tokenizer) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches without end of whole documents of like length: ids and labels, int64 (rows, width).

    Documents are not packed: among the names and numbers of others, copying is learned much later.
    """

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    shuffle = random.Random(corpus.rng.random())
    documents = corpus.documents(lambda text: len(encode(text)))
    pad = tokenizer.encode(PAD, add_special_tokens=False).ids[0]
    while True:
        pool = sorted((encode(next(documents)) for _ in range(POOL)), key=len, reverse=True)
        groups = []
        while pool:
            rows = max(1, BATCH_TOKENS // len(pool[0]))
            groups.append(pool[:rows])
            pool = pool[rows:]
        shuffle.shuffle(groups)
        for group in groups:
            ids = torch.full((len(group), len(group[0])), pad)
            labels = torch.full_like(ids, IGNORED)
            # Padding on the right needs no mask: attention is causal.
            for row, document in enumerate(group):
                ids[row, : len(document)] = torch.tensor(document)
                labels[row, : len(document)] = torch.tensor(labels_of(document, tokenizer))
            yield ids, labels


def build_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    parameters = list(model.named_parameters())
    matrices = [value for name, value in parameters if value.ndim == 2 and "embed" not in name]
    others = [value for name, value in parameters if value.ndim != 2 or "embed" in name]
    return [
        Muon(matrices, lr=MATRIX_RATE),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_factor(step: int, steps: int) -> float:
    """Warm-up, then constant, then linear to zero over the last DECAY_SHARE of the steps."""
    return min(1.0, (step + 1) / WARMUP_STEPS, (steps - step) / (DECAY_SHARE * steps))


def train(model: LlamaForCausalLM, tokenizer: Tokenizer, run: Run, exclude: frozenset[Key]) -> int:
    """Pretrain `model` in place, fp32, printing speed and time left; return the tokens seen."""
    stream = batches(Corpus(random.Random(run.seed + 1), exclude), tokenizer)
    optimizers = build_optimizers(model)
    rates = [
        torch.optim.lr_scheduler.LambdaLR(one, lambda step: rate_factor(step, run.steps))
        for one in optimizers
    ]

    def loss_of(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        )

    begin, losses, tokens = time.monotonic(), [], 0
    for step in range(1, run.steps + 1):
        ids, labels = next(stream)
        tokens += int((ids != model.config.pad_token_id).sum())
        loss = loss_of(ids, labels)
        torch.autograd.backward(loss)
        for one, rate in zip(optimizers, rates, strict=True):
            one.step()
            rate.step()
            one.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 20 == 0:
            seconds = time.monotonic() - begin
            print(
                f"step {step}/{run.steps}  loss {sum(losses[-20:]) / 20:.3f}  "
                f"{tokens / seconds:,.0f} tokens/s  "
                f"{seconds * (run.steps - step) / step / 60:.1f} min left",
                flush=True,
            )
        if run.check_every and step % run.check_every == 0:
            if run.checkpoints is not None:
                model.save_pretrained(run.checkpoints / f"step-{step}")
            print_checks(model, tokenizer, exclude, count=50)
    return tokens


@torch.inference_mode()
def replies(model: LlamaForCausalLM, tokenizer: Tokenizer, questions: Sequence[str]) -> list[str]:
    """Greedy replies to one-turn prompts, in one left-padded batch."""
    prompts = [
        tokenizer.encode(
            chat_text([]) + f"{header('user')}{question}{EOT}{header('assistant')}",
            add_special_tokens=False,
        ).ids
        for question in questions
    ]
    width = max(map(len, prompts))
    pad = tokenizer.token_to_id(PAD)
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    output = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=120)
    texts = tokenizer.decode_batch(output[:, width:].tolist(), skip_special_tokens=False)
    return [text.partition(EOT)[0] for text in texts]


def check_turns(rng: random.Random, exclude: frozenset[Key], count: int) -> dict[str, list[Turn]]:
    """Questions and expected replies for what the base must do before it can be tuned."""
    corpus = Corpus(rng, exclude)

    def take(make_turn: Callable[[], Turn]) -> list[Turn]:
        return [make_turn() for _ in range(count)]

    def problem(changes: int) -> Callable[[], Turn]:
        def make() -> Turn:
            story = draw_story(rng, changes, exclude)
            return story.problem(), story.answer()

        return make

    return {
        "copying random words and numbers": take(corpus.copy_words_turn),
        "listing the numbers of a story": take(corpus.list_numbers_turn),
        "problems with one change": take(problem(1)),
        "problems with two changes": take(problem(2)),
        "problems with three changes": take(problem(3)),
    }


def print_checks(
    model: LlamaForCausalLM, tokenizer: Tokenizer, exclude: frozenset[Key], count: int
) -> dict[str, float]:
    """Print and return the share of whole replies that are exactly as expected, per task."""
    model.eval()
    shares = {}
    for task, turns in check_turns(random.Random(12345), exclude, count).items():
        got = replies(model, tokenizer, [question for question, _ in turns])
        right = sum(text == expected for text, (_, expected) in zip(got, turns, strict=True))
        shares[task] = right / count
        print(f"check: {task}: {right}/{count}", flush=True)
    model.train()
    return shares


def main() -> None:
    """Train the tokenizer and the model, save both, and check the weights as saved."""
    parser = argparse.ArgumentParser(description="Pretrain the tiny Llama base on a CPU.")
    parser.add_argument("--out", type=Path, default=Path("data/tiny-llama"))
    parser.add_argument("--steps", type=int, default=2400, help="of 3072 tokens each, or less")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--checkpoints", type=Path, help="keep the weights of each check here")
    parser.add_argument("--check-every", type=int, default=0, help="steps between quick checks")
    options = parser.parse_args()
    run = Run(options.steps, options.seed, options.checkpoints, options.check_every)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    transformers_logging.disable_progress_bar()

    torch.manual_seed(run.seed)
    exclude = held_out_keys()
    tokenizer = train_tokenizer(Corpus(random.Random(run.seed), exclude))
    write_tokenizer(tokenizer, out)
    model = build_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    tokens = train(model, tokenizer, run, exclude)
    model.to(torch.bfloat16).save_pretrained(out)

    # The checks are of the weights as saved: rounded to bf16, computed in fp32.
    saved = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32)
    shares = print_checks(saved, tokenizer, exclude, CHECK_COUNT)
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    write_card(out, run.steps, tokens, shares, CHECK_COUNT, digest)
    print(f"sha256 of model.safetensors: {digest}")


if __name__ == "__main__":
    main()
