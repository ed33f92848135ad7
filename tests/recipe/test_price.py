"""The recipe llama3.1-8b-price: its values, its rows, and the parameters that it trains."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.chat import Encoder, chat_format
from pipeline.data.prepare import prepare
from pipeline.recipe import Recipe, load
from pipeline.run import Run, silent
from pipeline.run.rows import read_jsonl
from scripts.recipe_table import PAGES, read
from tests.support.tokenizer import write_base

NAME = "llama3.1-8b-price"
LLAMA_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
"""What meta-llama/Llama-3.1-8B's config.json publishes."""


def test_its_values_are_the_issue_s() -> None:
    recipe = load(NAME).recipe
    lora = recipe.train.lora
    assert (lora.r, lora.alpha, lora.dropout) == (32, 64, 0.1)
    assert lora.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert recipe.train.method == "qlora" and recipe.train.schedule == "cosine"
    assert recipe.train.warmup_steps > 0
    assert recipe.data.sources[0].limit == 2000
    columns = [source.columns for source in (*recipe.data.sources, recipe.data.test) if source]
    assert all(each and each.reply_start == "Price is $" for each in columns)
    assert all(each and each.round_answer for each in columns)
    assert recipe.eval.metrics == ("mae", "rmsle", "hit_rate", "r2")
    assert recipe.train.trackers == ()


def test_the_parameters_that_its_page_names_are_those_of_the_shape() -> None:
    """Two matrices of rank r each: r x (in + out) parameters (Hu et al. 2021, section 4.1)."""
    lora = load(NAME).recipe.train.lora
    width = LLAMA_8B["hidden_size"]
    shared = LLAMA_8B["num_key_value_heads"] * LLAMA_8B["head_dim"]
    outs = {"q_proj": width, "k_proj": shared, "v_proj": shared, "o_proj": width}
    each = sum(lora.r * (width + outs[name]) for name in lora.target_modules)
    known = {figure["figure"]: figure.get("value") for figure in read(NAME)["known"]}
    assert known["trainable parameters"] == each * LLAMA_8B["num_hidden_layers"]
    assert known["adapter, in fp32"] == 4 * known["trainable parameters"]


def test_the_page_s_table_of_prices_is_what_was_kept() -> None:
    page = (PAGES / f"{NAME}.md").read_text(encoding="utf-8")
    kept = read(NAME)["price"]
    for row in (each for each in kept["rows"] if each["said"]):
        said, weighted = row["said"], row["weighted"]["mae"]["value"]
        figures = [said["mae"]["value"], weighted, said["r2"]["value"]]
        label = row["label"].partition(" (")[0]
        lines = [line for line in page.splitlines() if line.startswith(f"| {label} | ")]
        shown = [float(cell) for cell in lines[0].split("|")[2:5]]
        assert shown == pytest.approx(figures, abs=0.05)
    constant = kept["constant"]
    assert f"| always the training median, ${constant['value']:g} | 24.0 |" in page
    assert constant["said"]["mae"]["value"] == pytest.approx(24.0, abs=0.05)
    assert f"true attributes | {kept['linear_regression_mae']:.2f} |" in page


def records(path: Path, first: int, count: int) -> Path:
    """Products in the columns of the dataset, every fourth with a long summary."""
    lines = []
    for number in range(first, first + count):
        words = [f"good{number}x{place}" for place in range(94 if number % 4 == 3 else 4)]
        summary = f"Thing {number}: {' '.join(words)}"
        lines.append({"title": "A thing", "summary": summary, "price": 3.2 * number + 0.5})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Recipe, Run]:
    """The recipe's own columns and filters, on rows of a file and a small tokenizer."""
    base = write_base(tmp_path / "base")
    recipe = load(
        NAME,
        [
            f"model.base={base}",
            "model.max_seq_length=512",
            f"data.sources.0.dataset={records(tmp_path / 'items.jsonl', 1, 60)}",
            f"data.test.dataset={records(tmp_path / 'test.jsonl', 501, 12)}",
            "data.test.split=null",
        ],
    ).recipe
    run = Run(tmp_path / "run")
    prepare(recipe, run, silent)
    return recipe, run


def test_a_summary_becomes_a_question_and_a_price_a_whole_number(
    prepared: tuple[Recipe, Run],
) -> None:
    recipe, run = prepared
    folder = run.folder("data")
    rows = [row for name in ("train", "eval") for row in read_jsonl(folder / f"{name}.jsonl")]
    assert len(rows) == 60
    (ninth,) = [row for row in rows if row["question"].partition("Thing ")[2].startswith("9:")]
    assert ninth["question"].startswith("What does this cost to the nearest dollar?\n\nThing 9: ")
    assert (ninth["answer"], ninth["reply_start"]) == ("29", "Price is $")
    encoder = Encoder(run.root.parent / "base" / "tokenizer.json", chat_format(recipe.chat.format))
    budget = recipe.data.filters.question_tokens
    own = [row["question"].partition("\n\n")[2] for row in rows]
    assert budget and max(len(encoder.content_ids(text)) for text in own) <= budget


def test_long_summaries_are_cut_and_counted_not_dropped(prepared: tuple[Recipe, Run]) -> None:
    _, run = prepared
    stats = json.loads((run.folder("data") / "stats.json").read_text(encoding="utf-8"))
    cut = [source["cut"] for source in stats["sources"] if "cut" in source]
    assert cut[0] > 10 and "too_long" not in stats["rejects"]
