"""The recipe qwen3-0.6b-alpaca-100: its values, its rows, and the parameters that it trains."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.assets import locate
from pipeline.chat import Encoder, chat_format
from pipeline.data.prepare import prepare
from pipeline.evaluate.items import item_of
from pipeline.recipe import Recipe, load
from pipeline.run import Run
from pipeline.run.rows import read_jsonl
from tests.data.support import rows_of
from tests.support.qwen import write_tokenizer

ROOT = Path(__file__).parents[2]
NAME = "qwen3-0.6b-alpaca-100"
TINY = "builtin:samples/alpaca-tiny.jsonl"

QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
LLAMA_3B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
LLAMA_1B = LLAMA_3B | {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "head_dim": 64,
}
SHAPES: dict[str, dict[str, Any]] = {
    NAME: QWEN3,
    "qwen3-0.6b-r1": QWEN3,
    "llama3.2-1b-r1": LLAMA_1B,
    "llama3.2-3b-r1": LLAMA_3B,
}
"""Recipe -> the shape that its base's config.json publishes."""


def kept(recipe: str) -> dict[str, Any]:
    """What the recipe's page says is known, by figure."""
    path = ROOT / "benchmarks" / "recipes" / f"{recipe}.json"
    known = json.loads(path.read_text(encoding="utf-8"))["known"]
    return {each["figure"]: each.get("value") for each in known}


def test_it_is_the_classic_recipe_that_its_name_promises() -> None:
    recipe = load(NAME).recipe
    train, (source,) = recipe.train, recipe.data.sources
    assert (recipe.model.base, recipe.chat.format) == ("Qwen/Qwen3-0.6B-Base", "chatml-reasoning")
    assert (source.dataset, source.limit) == ("tatsu-lab/alpaca", 100)
    assert (train.method, train.precision, train.optimizer) == ("lora", "fp16", "paged_adamw_8bit")
    assert (train.batch_size, train.gradient_accumulation, train.epochs) == (4, 4, 1)
    assert train.learning_rate == 2e-5
    lora = train.lora
    assert (lora.r, lora.alpha, lora.dropout, len(lora.target_modules)) == (32, 64, 0.2, 7)


def test_three_unseen_prompts_are_asked_beside_the_test_rows_and_not_graded() -> None:
    first, second = load(NAME).recipe.eval.tasks
    rows = list(read_jsonl(locate(second)))
    items = [item_of(row, row["id"]) for row in rows]
    assert first == "test"
    assert [item.id for item in items] == ["explain", "haiku", "sentiment"]
    assert [item.reference for item in items] == [None, None, None]


def test_the_prompts_stand_in_none_of_the_shipped_rows() -> None:
    asked = {row["question"] for row in read_jsonl(locate("builtin:samples/prompts.jsonl"))}
    seen = {row["instruction"] for row in read_jsonl(locate(TINY))}
    seen |= {row["question"] for row in read_jsonl(locate("builtin:samples/general.jsonl"))}
    assert len(asked) == 3
    assert not asked & seen


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Run]:
    """The recipe's own rows part, on a Qwen3 tokenizer whose end of text is the base's."""
    folder = tmp_path_factory.mktemp("alpaca")
    base = write_tokenizer(folder / "base", "qwen3")
    path = base / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"eos_token": "<|endoftext|>"}
    path.write_text(json.dumps(config))
    (base / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    changed = [f"model.base={base}", f"data.sources.0.dataset={TINY}"]
    recipe, run = load(NAME, changed).recipe, Run(folder / "run")
    prepare(recipe, run, lambda _: None)
    return recipe, run


def test_rows_that_all_lack_reasoning_are_prepared_and_split_without_a_loss(
    prepared: tuple[Recipe, Run],
) -> None:
    _, run = prepared
    counts = run.require("data").counts
    rows = [row for split in ("train", "eval", "test") for row in rows_of(run, split)]
    assert counts["rejects"] == 0
    assert counts["train"] + counts["eval"] + counts["test"] == len(rows) == 48
    assert min(counts[split] for split in ("train", "eval", "test")) > 0
    assert all(row["reasoning"] is None for row in rows)
    assert counts["general"] == 64


def test_an_input_follows_its_instruction_after_an_empty_line(prepared: tuple[Recipe, Run]) -> None:
    _, run = prepared
    questions = [
        row["question"] for split in ("train", "eval", "test") for row in rows_of(run, split)
    ]
    assert "Give the plural of the word.\n\nchild" in questions
    assert "Name three birds that cannot fly." in questions


def test_a_row_is_learned_without_a_thinking_block(
    prepared: tuple[Recipe, Run],
) -> None:
    recipe, run = prepared
    assert not recipe.chat.thinking
    format = chat_format(recipe.chat.format, thinks=False)
    encoder = Encoder(Path(recipe.model.base) / "tokenizer.json", format)
    table = encoded(run, "train")
    rows = list(rows_of(run, "train"))
    assert len(table) == len(rows)
    for row, example in zip(rows, table, strict=True):
        ids, start = example["input_ids"], example["target_start"]
        given, learned = encoder.text_of(ids[:start]), encoder.text_of(ids[start:])
        assert given.endswith("<|im_start|>assistant\n")
        assert learned == f"{row['answer']}<|im_end|>"


@pytest.mark.e2e
@pytest.mark.parametrize("recipe", SHAPES)
def test_peft_trains_as_many_parameters_as_the_page_says(recipe: str) -> None:
    trained, total = parameters(SHAPES[recipe], recipe)
    said = kept(recipe)
    assert (trained, total) == (said["trainable parameters"], said["parameters in all"])
    assert said["share that is trained"] == pytest.approx(trained / total, abs=5e-5)


@pytest.mark.e2e
def test_the_alpaca_recipe_trains_3_28_percent_and_its_adapter_takes_77_mib() -> None:
    trained, total = parameters(QWEN3, NAME)
    assert (trained, total) == (20_185_088, 616_235_008)
    assert round(100 * trained / total, 2) == 3.28
    # in fp32, without the file's header
    assert kept(NAME)["adapter, in fp32"] == 4 * trained
    assert round(4 * trained / 2**20) == 77


def parameters(shape: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Trainable and all parameters that PEFT counts, on the meta device: no weight is made."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    lora = load(name).recipe.train.lora
    wanted = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
    )
    values = dict(shape)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        model = get_peft_model(AutoModelForCausalLM.from_config(config), wanted)
    assert {str(each.device) for each in model.parameters()} == {"meta"}
    trained, total = model.get_nb_trainable_parameters()
    return trained, total


def encoded(run: Run, split: str) -> list[dict[str, Any]]:
    """The split's examples as training reads them: `input_ids` and `target_start`."""
    import pyarrow as pa

    with pa.memory_map(str(run.folder("data") / "encoded" / f"{split}.arrow")) as file:
        rows: list[dict[str, Any]] = pa.ipc.open_stream(file).read_all().to_pylist()
    return rows
