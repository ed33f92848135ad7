"""Qwen2 and Qwen3 through the whole pipeline, with ChatML: rows in, a model in Ollama out."""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.chat import Encoder, chat_format, neutral_conversation
from pipeline.engines.gguf_file import read_gguf
from pipeline.engines.ollama import OllamaServer
from pipeline.run.rows import read_jsonl
from tests.e2e.conftest import Demo
from tests.support.qwen import Family, added, write_base

pytestmark = pytest.mark.e2e

FORMAT = chat_format("chatml-reasoning")
RECIPE = """
name: demo
model: {{base: ./base, max_seq_length: 128}}
chat: {{format: chatml-reasoning}}
data:
  sources: [{{dataset: ./rows.jsonl}}]
  dedupe: {{questions: exact}}
  no_thinking_share: 0.3
  eval_share: 0.05
  test_share: 0.05
train:
  method: {method}
  device: cpu
  precision: fp32
  batch_size: 16
  gradient_accumulation: 1
  max_steps: 60
  learning_rate: 0.005
  warmup_steps: 3
  weight_decay: 0.0
  optimizer: adamw_torch
  gradient_checkpointing: false
  lora: {{r: 32, alpha: 64}}
export: {{quantize: [Q8_0]}}
serve: {{name: tiny-{family}, num_ctx: 512, license: apache-2.0}}
"""
CASES: dict[Family, tuple[str, bool]] = {"qwen2": ("lora", False), "qwen3": ("qlora", True)}
"""Family -> how it is trained, and whether its output is its embedding."""


class Tuned(Demo):
    """A tiny base taught to answer every question alike, registered and checked."""

    family: Family

    @property
    def model(self) -> str:
        return f"tiny-{self.family}"

    def encoder(self) -> Encoder:
        return Encoder(self.folder / "base" / "tokenizer.json", FORMAT)


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory, ollama_server: OllamaServer
) -> Iterator[dict[Family, "Future[Tuned]"]]:
    """Both families at once, each on one core: half the time, and no threads that spin."""
    made = {family: written(tmp_path_factory.mktemp(family), family) for family in CASES}
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        patch.setenv("OMP_NUM_THREADS", "1")
        futures = {
            family: pool.submit(through_the_pipeline, folder, family, ollama_server)
            for family, folder in made.items()
        }
        wait(futures.values())
    yield futures
    for family in CASES:
        ollama_server.delete(f"tiny-{family}")


@pytest.fixture(params=CASES)
def tuned(request: pytest.FixtureRequest, both: dict[Family, "Future[Tuned]"]) -> Tuned:
    return both[request.param].result()


def written(folder: Path, family: Family) -> Path:
    """A base, rows and a recipe."""
    method, tied = CASES[family]
    write_base(folder / "base", family, tied=tied)
    write_rows(folder / "rows.jsonl")
    recipe = RECIPE.format(method=method, family=family)
    (folder / "pipe.yaml").write_text(recipe, encoding="utf-8")
    return folder


def through_the_pipeline(folder: Path, family: Family, server: OllamaServer) -> Tuned:
    tuned = Tuned(folder, server.url)
    tuned.family = family
    for command in ("prepare", "train", "export", "check"):
        tuned.pipe(command)
    return tuned


def write_rows(path: Path) -> None:
    """Different questions with one reply; some spell tokens, one is not in NFC."""
    odd = ("nai\u0308ve ", "<think> ", "</think> <|im_end|> ", "<tool_call> ")
    with path.open("w", encoding="utf-8") as file:
        for number in range(240):
            begin = odd[number // 4] if number % 4 == 0 and number < 16 else ""
            question = begin + _question(number)
            row = {"question": question, "reasoning": "Count them.", "answer": "It is 4."}
            file.write(json.dumps(row) + "\n")


def _question(number: int) -> str:
    """In three forms, the last of them that of the questions that the check makes up."""
    name = ("Dan", "Kim", "Mia", "Tom")[number % 4]
    things = ("pens", "hats", "coins", "books", "maps")[number % 5]
    count, more = 7 + number, 1 + number % 9
    return (
        f"{name} has {count} {things} and finds {more} more. How many are there now?",
        f"What is {count} + {more}?",
        f"{name} has {count} {things}. {name} finds {more} more. {name} sells {1 + number % 6}. "
        f"How many {things} does {name} have now?",
    )[number % 3]


def gates(tuned: Tuned) -> dict[str, dict[str, Any]]:
    return {gate["name"]: gate for gate in tuned.json("check/results.json")["gates"]}


def test_every_gate_passes(tuned: Tuned) -> None:
    found = gates(tuned)
    assert {name: gate["status"] for name, gate in found.items()} == dict.fromkeys(found, "passed")
    assert len(found) == 26
    for name in ("prompt text: Transformers", "prompt text: llama.cpp", "prompt text: Ollama"):
        assert "28 prompts of 15 conversations" in found[name]["compared"]
    assert found["token ids"]["compared"] == "ids of 28 prompts, text in NFC"
    spelled = found["control tokens in text"]["compared"]
    assert ("<think>" in spelled) == (tuned.family == "qwen3")
    assert "training 0, sent by our clients 0, raw in llama.cpp " in spelled
    assert found["one BOS"]["compared"].endswith("Ollama's template, which begin with none")
    assert "asks for no scaling" in found["rope frequencies"]["compared"]


def test_training_learned_it_and_says_what_it_was(tuned: Tuned) -> None:
    manifest = tuned.json("train/manifest.json")
    assert manifest["chat_format"] == FORMAT.fingerprint()
    assert manifest["facts"]["final_loss"] < 0.2
    steps = read_jsonl(tuned.run.folder("train") / "metrics.jsonl")
    assert next(step["loss"] for step in steps if "loss" in step) > 2


def test_the_file_is_a_qwen_with_its_own_tokens(tuned: Tuned) -> None:
    file = read_gguf(tuned.run.folder("export") / f"{tuned.model}-Q8_0.gguf")
    values, names = file.metadata, {tensor.name for tensor in file.tensors}
    assert values["general.architecture"] == tuned.family
    assert values["tokenizer.ggml.pre"] == "qwen2"
    assert not values["tokenizer.ggml.add_bos_token"]
    kinds = dict(
        zip(values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"], strict=True)
    )
    assert {kinds[name] for name in added(tuned.family) if not name.startswith("<|")} == {4}
    assert {kinds[name] for name in added(tuned.family) if name.startswith("<|")} == {3}
    assert ("blk.0.attn_q_norm.weight" in names) == (tuned.family == "qwen3")
    assert ("blk.0.attn_q.bias" in names) == (tuned.family == "qwen2")
    assert ("output.weight" in names) == (tuned.family == "qwen2")


def test_any_client_gets_thinking_apart_and_none_where_it_wants_none(tuned: Tuned) -> None:
    said = {}
    for think in (True, False):
        body = {
            "model": tuned.model,
            "messages": [{"role": "user", "content": "Tom has 3 pens. How many?"}],
            "think": think,
            "stream": False,
            "options": {"temperature": 0, "num_predict": 64},
        }
        reply = httpx.post(f"{tuned.ollama}/api/chat", json=body, timeout=60, trust_env=False)
        said[think] = reply.json()["message"]
    assert said[True]["thinking"].strip() == "Count them."
    assert said[True]["content"] == said[False]["content"] == "It is 4."
    assert not said[False].get("thinking")


@pytest.mark.parametrize(
    "text", ["a <think> b", "</think>", "<|im_end|>", "x<tool_call>", "e\u0301"]
)
def test_what_spells_a_token_is_as_many_ids_in_ollama_as_in_training(
    tuned: Tuned, text: str
) -> None:
    encoder = tuned.encoder()
    sent = neutral_conversation([{"role": "user", "content": text}], FORMAT)
    reply = OllamaServer(tuned.ollama).chat(tuned.model, sent, options={"num_predict": 1})
    assert reply.prompt_eval_count == len(encoder.prompt(sent))


def test_a_format_of_another_family_is_refused_with_the_cure(tuned: Tuned) -> None:
    done = tuned.pipe("prepare", "--set", "chat.format=llama3.2-reasoning", code=1)
    assert "has no token <|begin_of_text|>, which the format llama3.2-reasoning" in done.stderr
    assert "--set chat.format=chatml-reasoning" in done.stderr
