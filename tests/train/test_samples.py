"""Questions answered aloud leave no trace in what is learned: every bit is the same without."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.assets import asset
from pipeline.chat import Encoder, chat_format
from pipeline.run.rows import read_jsonl
from pipeline.train.samples import answer_aloud
from tests.e2e.conftest import Demo

pytestmark = pytest.mark.e2e

QUESTIONS = ["Dan owns 9 cards and sells 5. How many are left?", "Hi"]


def encoder() -> Encoder:
    tokenizer = asset("data/tiny-llama") / "tokenizer.json"
    return Encoder(tokenizer, chat_format("llama3.2-reasoning"))


def prompts() -> list[list[int]]:
    return [encoder().prompt([{"role": "user", "content": text}]) for text in QUESTIONS]


def adapted() -> Any:
    """The tiny base with a fresh adapter whose dropout draws, checkpointing its activations."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(asset("data/tiny-llama"), dtype=torch.float32)
    base.config.use_cache = False
    targets = ["q_proj", "v_proj", "up_proj"]
    model = get_peft_model(base, LoraConfig(r=4, lora_dropout=0.2, target_modules=targets))
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.train()
    model.base_model.model.model.layers[0].mlp.eval()  # a flag unlike the others is put back too
    return model


def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(asset("data/tiny-llama"))


def learned(model: Any, *, aloud: bool) -> tuple[list[float], dict[str, Any], list[list[str]]]:
    """Losses, weights and replies of four steps."""
    import torch

    torch.manual_seed(7)
    ids = torch.tensor([prompts()[0]])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses, said = [], []
    for _ in range(4):
        if aloud:
            ends = sorted(encoder().end_ids)
            said.append(answer_aloud(model, tokenizer(), prompts(), ends, max_new_tokens=6))
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}, said


def test_losses_and_weights_have_the_same_bits_with_answers_in_between() -> None:
    import torch

    quiet, aloud = adapted(), adapted()
    flags = [module.training for module in aloud.modules()]
    losses, weights, _ = learned(quiet, aloud=False)
    same, others, said = learned(aloud, aloud=True)
    assert losses == same and losses[0] != losses[-1]
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert [module.training for module in aloud.modules()] == flags and not all(flags)
    assert aloud.config.use_cache is False
    assert all(len(each) == 2 for each in said)


def test_a_reply_is_that_of_the_model_alone_and_ends_where_it_ends() -> None:
    import torch

    model, known = adapted(), tokenizer()
    ends = sorted(encoder().end_ids)
    together = answer_aloud(model, known, prompts(), ends, 12)
    assert together == [answer_aloud(model, known, [one], ends, 12)[0] for one in prompts()]
    model.eval()
    ids = prompts()[0]
    with torch.no_grad():
        for _ in range(12):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    reply = ids[len(prompts()[0]) :]
    cut = next((place for place, token in enumerate(reply) if token in ends), len(reply))
    assert together[0] == encoder().reply_of(reply[:cut]).strip()
    # a reply whose first token ends it is empty
    assert answer_aloud(model, known, prompts()[:1], [reply[0]], 12) == [""]
    assert answer_aloud(model, known, [], ends) == []


def test_the_real_training_learns_the_same_with_and_without(tmp_path: Path) -> None:
    (tmp_path / "pipe.yaml").write_text(
        "extends: demo\ntrain: {max_steps: 4, batch_size: 2, gradient_accumulation: 1}\n"
    )
    short = Demo(tmp_path)
    short.pipe("prepare")
    files = []
    for every in ("null", "2"):
        asked = [f"train.sample_every={every}", "train.sample_rows=2"]
        short.pipe("train", "--force", *(part for each in asked for part in ("--set", each)))
        folder: Path = short.run.folder("train")
        names = ("metrics.jsonl", "adapter/adapter_model.safetensors")
        files.append([(folder / name).read_bytes() for name in names])
    assert files[0] == files[1]
    lines = list(read_jsonl(folder / "samples.jsonl"))
    questions = [row["question"] for row in read_jsonl(short.run.folder("data") / "eval.jsonl")]
    assert [(line["step"], line["question"]) for line in lines] == [
        (step, question) for step in (2, 4) for question in questions[:2]
    ]
    assert all(line["reply"].strip() == line["reply"] for line in lines)
