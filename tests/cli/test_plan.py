"""`pipe plan`: tables for people, JSON for programs, and no time that was not measured."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli.plan import USES, plan
from pipeline.errors import PipeError
from pipeline.recipe import load
from pipeline.run import Manifest, Run
from pipeline.study.plan import catalogue
from pipeline.study.plan.calibrate import STEPS
from tests.study.plan.test_time import prepared

CARDS = ["8", "12", "16", "24", "48", "80"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPE_RECIPE", raising=False)
    # nothing is in a hub's cache, and no server is asked
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def pipe(*arguments: str) -> str:
    result = CliRunner().invoke(plan, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def as_json(*arguments: str) -> Any:
    return json.loads(pipe(*arguments, "--json"))


def test_a_recipe_gets_memory_by_part_a_verdict_for_each_card_disk_and_no_time() -> None:
    said = pipe("-r", "llama3.2-3b-r1")
    assert "3,212,749,824 parameters" in said and "the catalogue's shape" in said
    assert "32 bits 12.9 GB, 16 bits 6.43 GB, 8 bits 3.21 GB, 4 bits 1.61 GB" in said
    for word in ("base", "adapter", "gradients", "optimizer", "activations", "overhead", "peak"):
        assert f"\n {word} " in said
    assert [f"{card} GB" for card in CARDS if f"\n {card} GB " in said] == [
        f"{card} GB" for card in CARDS
    ]
    assert "0.94 GB of KV cache for 8,192 tokens" in said
    assert "Time: the rows are not known yet; first: pipe prepare" in said


def test_the_json_holds_what_the_tables_show() -> None:
    found = as_json("-r", "llama3.2-3b-r1", "--vram", "10")
    assert found["base"]["from"] == "catalogue" and found["base"]["count"] == "published"
    assert list(found["memory_bytes"]) == sorted(["full", "lora", "lora-8bit", "qlora"])
    sizes = [each["gigabytes"] for each in found["verdicts"]["qlora"]]
    assert sizes == [8, 10, 12, 16, 24, 48, 80]
    for memory in found["memory_bytes"].values():
        kept = ("weights", "adapter", "gradients", "optimizer", "activations", "logits")
        beside = ("allocator", "overhead")
        assert memory["step"] == sum(memory[part] for part in (*kept, *beside))
    assert found["time"] == {"steps": None, "tokens": None, "seconds": None, "speed": None}
    assert not Path("runs").exists()


def test_a_card_that_is_too_small_is_told_what_to_change() -> None:
    said = pipe("-r", "llama3.2-3b-r1", "--set", "train.method=lora")
    assert "8 GB: --set train.batch_size=1 --set train.gradient_accumulation=16" in said
    found = as_json("-r", "llama3.2-3b-r1", "--set", "train.method=lora")["verdicts"]["lora"][0]
    assert found["fits"]
    assert found["changes"] == {"train.batch_size": 1, "train.gradient_accumulation": 16}


def test_a_recipe_for_a_cpu_is_planned_in_fp32_and_without_an_8_bit_base() -> None:
    found = as_json("-r", "demo")
    assert set(found["memory_bytes"]) == {"full", "lora", "qlora"}
    assert found["memory_bytes"]["lora"]["weights"] == 4 * found["base"]["parameters"]
    assert found["base"]["from"] == "folder"
    assert "GB of RAM" in pipe("-r", "demo")


@pytest.mark.parametrize("use", USES)
def test_a_use_gets_models_that_fit_with_method_licence_and_reason(use: str) -> None:
    found = as_json("--use", use, "--vram", "12")
    assert len(found["models"]) == len(catalogue().models)
    fitting = [model for model in found["models"] if model["fits"]]
    assert fitting and all(model["memory_bytes"] <= 12 * 2**30 for model in fitting)
    assert all(model["licence"] and model["context"] for model in found["models"])
    assert any("Vision" in each["name"] for each in found["out_of_scope"])


def test_a_model_s_name_is_whole_in_80_columns() -> None:
    said = CliRunner(env={"COLUMNS": "80"}).invoke(plan, ["--use", "code", "--vram", "24"]).output
    table = said[said.index("\n model ") : said.index("\nNot tuned here")].splitlines()
    assert all(len(line) <= 80 for line in table)
    named = {line.split()[0] for line in table if len(line) > 1 and line[1] not in " ─"}
    assert named >= {"Qwen2.5-Coder-1.5B", "Qwen2.5-Coder-0.5B"}


def test_uses_are_those_of_the_catalogue() -> None:
    assert tuple(catalogue().uses) == USES


def test_when_not_to_fine_tune_is_said_with_its_reasons() -> None:
    said = pipe("--use", "chat", "--vram", "24")
    assert "-> prompting." in said and "-> retrieval." in said
    assert "Not tuned here: Llama 3.2 11B and 90B Vision" in said


def test_a_use_takes_no_recipe() -> None:
    result = CliRunner().invoke(plan, ["--use", "chat", "-r", "demo"])
    assert result.exit_code == 2 and "catalogue" in result.output


def test_a_base_that_nobody_knows_is_refused_with_a_way_on() -> None:
    with pytest.raises(PipeError) as caught:
        pipe("-r", "llama3.2-1b-r1", "--set", "model.base=someone/unheard-of")
    assert "unheard-of" in caught.value.message and "pipe plan --use" in caught.value.hint


def test_a_folder_without_a_model_is_refused() -> None:
    with pytest.raises(PipeError, match=r"config\.json"):
        pipe("-r", "llama3.2-1b-r1", "--set", "model.base=./nothing")


def test_the_hubs_cache_is_looked_into_and_named(tmp_path: Path) -> None:
    from pipeline.assets import asset

    commit = "a" * 40
    cached = tmp_path / "hub" / "models--me--little"
    (cached / "snapshots" / commit).mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    config = asset("data/tiny-llama/config.json").read_bytes()
    (cached / "snapshots" / commit / "config.json").write_bytes(config)
    found = as_json("-r", "demo", "--set", "model.base=me/little")
    assert found["base"]["from"] == "hub cache"
    # its weights are not there yet
    assert found["disk"][0]["how"] == "planned"


def test_a_calibration_trains_a_few_steps_elsewhere_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker itself runs in CI through the commands of docs/plan.md."""
    settings = ["train.eval_every=5", "train.keep=best"]
    recipe = load("demo", settings).recipe
    run = prepared(Run.of(recipe).root, recipe)
    before = sorted(run.root.rglob("*"))
    trials: list[Run] = []

    def train(asked: Any, trial: Run, *_: object) -> Manifest:
        trials.append(trial)
        assert asked.train.max_steps == STEPS and asked.train.eval_every is None
        assert asked.train.keep == "last" and asked.train.batch_size == recipe.train.batch_size
        rows = [p.name for p in (trial.folder("data") / "encoded").iterdir()]
        assert sorted(rows) == ["eval.arrow", "train.arrow"]
        lent = trial.folder("data") / "encoded" / "train.arrow"
        assert lent.samefile(run.folder("data") / "encoded" / "train.arrow")  # not copied
        folder = trial.folder("train")
        folder.mkdir()
        line = {"seconds": 2.0, "tokens_per_second": 100.0}
        (folder / "speed.jsonl").write_text(f"{json.dumps(line)}\n" * STEPS)
        log = {"peak_memory_bytes": {"resident": 1_234_000_000}}
        (folder / "training_log.json").write_text(json.dumps(log))
        return Manifest(stage="train", section={}, inputs={})

    monkeypatch.setattr("pipeline.train.train", train)
    time = as_json("-r", "demo", "--calibrate", *(f"--set={each}" for each in settings))["time"]
    assert time["steps"] == 180 and time["speed"]["tokens_per_second"] == 100.0
    assert time["seconds"] == pytest.approx(time["tokens"] / 100, abs=0.1)
    assert time["speed"]["peak_bytes"] == 1_234_000_000 and time["speed"]["steps"] == STEPS - 1
    assert sorted(run.root.rglob("*")) == before and not trials[0].root.exists()


def test_a_calibration_without_rows_says_what_comes_first() -> None:
    with pytest.raises(PipeError) as caught:
        pipe("-r", "demo", "--calibrate")
    assert caught.value.hint == "Run: pipe prepare"
