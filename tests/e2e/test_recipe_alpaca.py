"""qwen3-0.6b-alpaca-100 on its tiny stand-in, as its page shows it: from rows to answers."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.assets import locate
from pipeline.recipe import load
from pipeline.run import Run
from pipeline.run.rows import read_jsonl
from scripts.recipe_table import figures, tables
from tests.docs.pages import DOCS, run_lines
from tests.docs.reader import left_by_the_first_block, reader
from tests.e2e.conftest import Demo

pytestmark = pytest.mark.e2e

NAME = "qwen3-0.6b-alpaca-100"
PAGE = DOCS / "recipes" / f"{NAME}.md"
PROMPTS = {
    row["id"]: row["question"] for row in read_jsonl(locate("builtin:samples/prompts.jsonl"))
}


class StandIn(Demo):
    @property
    def run(self) -> Run:
        return Run(self.folder / "runs" / "alpaca-tiny")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, readers_ollama: str) -> StandIn:
    """What the page's first block leaves, with the pipe.yaml that stands in the page."""
    folder = tmp_path_factory.mktemp("alpaca")
    left_by_the_first_block(NAME, folder, readers_ollama)
    return StandIn(folder, readers_ollama)


def answers(tuned: StandIn) -> dict[str, dict[str, dict[str, Any]]]:
    """Engine -> id -> answer to one of the three prompts."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for answer in read_jsonl(tuned.run.folder("eval") / "answers.jsonl"):
        if answer["task"] == "prompts":
            found.setdefault(answer["engine"], {})[answer["id"]] = answer
    return found


def test_it_differs_from_the_recipe_in_what_a_tiny_base_on_a_cpu_needs_alone(
    tuned: StandIn,
) -> None:
    real = leaves(load(NAME).recipe.model_dump(mode="json"))
    tiny = leaves(load(str(tuned.run.root / "recipe.yaml")).recipe.model_dump(mode="json"))
    changed = {key for key in real if real[key] != tiny.get(key)}
    assert changed == {
        "name",
        "model.base",
        "model.max_seq_length",
        "chat.format",
        "data.sources.0.dataset",
        "train.device",
        "train.precision",
        "train.optimizer",
        "train.gradient_checkpointing",
        "train.learning_rate",
        "train.max_steps",
        "serve.license",
        "eval.engines",
        "eval.max_new_tokens",
    }


def leaves(values: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, items of a list of sections by their number."""
    if isinstance(values, list) and any(isinstance(each, Mapping) for each in values):
        values = dict(enumerate(values))
    if not isinstance(values, Mapping) or not values:
        return {prefix.removesuffix("."): values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= leaves(value, f"{prefix}{key}.")
    return found


def test_lora_of_rank_32_with_dropout_learned_from_rows_without_reasoning(tuned: StandIn) -> None:
    adapter = tuned.json("train/adapter/adapter_config.json")
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (32, 64, 0.2)
    assert len(adapter["target_modules"]) == 7
    manifest = tuned.json("train/manifest.json")
    assert not manifest["facts"]["load_in_4bit"]
    losses = [line["loss"] for line in metrics(tuned) if "loss" in line]
    assert len(losses) == 30
    assert losses[-1] < 0.6 * losses[0]
    test = tuned.json("eval/results.json")["engines"]
    assert test["adapter"]["perplexity"]["value"] < test["base"]["perplexity"]["value"]


def metrics(tuned: StandIn) -> list[dict[str, Any]]:
    return list(read_jsonl(tuned.run.folder("train") / "metrics.jsonl"))


def test_base_adapter_and_files_answer_the_same_three_prompts(tuned: StandIn) -> None:
    found = answers(tuned)
    assert set(found) == {"base", "adapter", "Q8_0", "Q4_K_M"}
    for by_id in found.values():
        assert {id: answer["question"] for id, answer in by_id.items()} == PROMPTS
        assert all("exact_match" not in answer["metrics"] for answer in by_id.values())
    before, after = (
        [found[engine][id]["text"] for id in PROMPTS] for engine in ("base", "adapter")
    )
    assert sum(a != b for a, b in zip(before, after, strict=True)) >= 2
    results = tuned.json("eval/results.json")
    assert results["tasks"]["prompts"]["items"] == 3


def test_the_report_shows_each_prompt_with_what_base_and_tuned_said(tuned: StandIn) -> None:
    page = (tuned.run.root / "report.html").read_text(encoding="utf-8")
    articles = re.findall(r'<article class="sample">.*?</article>', page, re.DOTALL)
    for question in PROMPTS.values():
        (article,) = [each for each in articles if question.split("\n")[0] in each]
        heads = re.findall(r"<h4><span>(.*?)</span>", article)
        assert {"base", "adapter"} <= {name for head in heads for name in head.split(", ")}


def test_the_script_makes_the_page_s_tables_of_it(tuned: StandIn) -> None:
    kept = figures(tuned.run.root, NAME, "a machine")
    text = tables({"run": json.loads(json.dumps(kept))})
    assert "**A tiny stand-in, not this recipe's base**: run `alpaca-tiny`" in text
    assert kept["parameters"]["trainable"] == 393_216
    assert {"adapter", "Q8_0", "Q4_K_M"} == set(kept["bytes"])
    assert [each["question"] for each in kept["aloud"]] == list(PROMPTS.values())
    assert all(each.keys() == {"question", "base", "tuned"} for each in kept["aloud"])
    assert text.count("\n| `") == 3


def test_all_else_that_the_page_shows_runs(tuned: StandIn, tmp_path: Path) -> None:
    shutil.copytree(tuned.folder, tmp_path, dirs_exist_ok=True)
    with reader(tmp_path, tuned.ollama, NAME) as someone:
        for line in run_lines(PAGE)[1]:
            someone.types(line)
