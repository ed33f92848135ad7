"""Every method and setting of `train` that a CPU has, seen to act in what it leaves behind."""

import json
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipeline.run import Run
from tests.e2e.conftest import Demo

pytestmark = pytest.mark.e2e

TINY = Path(__file__).parents[2] / "data" / "tiny-llama"
STEPS = 5
RATE = 0.002
ROWS = 16
"""In a step."""


@dataclass
class Trained:
    """A run's training and what `pipe train` said."""

    run: Run
    said: str

    @property
    def folder(self) -> Path:
        return self.run.folder("train")

    @property
    def facts(self) -> dict[str, Any]:
        return dict(self.run.require("train").facts)

    @property
    def steps(self) -> list[dict[str, Any]]:
        lines = map(json.loads, (self.folder / "metrics.jsonl").read_text().splitlines())
        return [line for line in lines if "loss" in line]

    @property
    def rates(self) -> list[float]:
        return [line["learning_rate"] for line in self.steps]

    @property
    def adapter(self) -> dict[str, Any]:
        return dict(load_file(self.folder / "adapter" / "adapter_model.safetensors"))

    @property
    def config(self) -> dict[str, Any]:
        text = (self.folder / "adapter" / "adapter_config.json").read_text()
        return dict(json.loads(text))


class Bench:
    """Rows prepared once, trained on with other settings each time."""

    def __init__(self, folder: Path) -> None:
        self._demo = Demo(folder)
        (folder / "pipe.yaml").write_text(
            f"extends: demo\nname: prepared\n"
            f"train: {{max_steps: {STEPS}, warmup_steps: 2, batch_size: {ROWS}}}\n"
        )
        self._demo.pipe("prepare")

    def trained(self, name: str, *settings: str) -> Trained:
        runs = self._demo.folder / "runs"
        shutil.copytree(runs / "prepared", runs / name)
        flags = [part for each in settings for part in ("--set", each)]
        done = self._demo.pipe("train", "--run", name, *flags)
        return Trained(Run(runs / name), done.stderr)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("methods"))


@pytest.fixture(scope="module")
def plain(bench: Bench) -> Trained:
    return bench.trained("plain")


@pytest.fixture(scope="module")
def rslora(bench: Bench) -> Trained:
    return bench.trained(
        "rslora",
        "train.lora.rslora=true",
        "train.gradient_checkpointing=true",
        "train.schedule=constant_with_warmup",
    )


@pytest.fixture(scope="module")
def dora(bench: Bench) -> Trained:
    return bench.trained(
        "dora",
        "train.method=lora",
        "train.lora.dora=true",
        "train.batching=grouped",
        "train.schedule=cosine",
    )


@pytest.fixture(scope="module")
def full(bench: Bench) -> Trained:
    return bench.trained(
        "full", "train.method=full", "train.batching=packed", "train.learning_rate=0.0005"
    )


def test_nf4_holds_the_base_and_the_rate_falls_in_a_line(plain: Trained) -> None:
    facts = plain.facts
    assert facts["method"] == "qlora" and facts["load_in_4bit"] is True
    assert plain.rates == pytest.approx([0, RATE / 2, RATE, RATE * 2 / 3, RATE / 3])
    assert not plain.config["use_dora"] and not plain.config["use_rslora"]
    assert facts["batching"] == "shuffled"


def test_rslora_scales_by_the_root_of_the_rank(plain: Trained, rslora: Trained) -> None:
    """At the first step B is zero: the gradient is B's alone and grows as the scale."""
    first, scaled = plain.steps[0], rslora.steps[0]
    assert scaled["tokens"] == first["tokens"]
    assert scaled["loss"] == pytest.approx(first["loss"], abs=1e-6)
    root = rslora.config["r"] ** 0.5
    assert scaled["grad_norm"] / first["grad_norm"] == pytest.approx(root, rel=1e-4)
    assert rslora.config["use_rslora"]


def test_a_constant_rate_stays_after_its_warm_up(rslora: Trained) -> None:
    assert rslora.rates == pytest.approx([0, RATE / 2, RATE, RATE, RATE])


def test_gradient_checkpointing_is_on_where_asked_for(plain: Trained, rslora: Trained) -> None:
    assert not plain.facts["gradient_checkpointing"]
    assert rslora.facts["gradient_checkpointing"]


def test_sixteen_bits_hold_no_quantized_weight(dora: Trained) -> None:
    facts = dora.facts
    assert facts["method"] == "lora" and facts["load_in_4bit"] is False
    assert dora.rates == pytest.approx([0, RATE / 2, RATE, RATE * 0.75, RATE * 0.25])


def test_dora_learns_a_magnitude_for_every_output(dora: Trained) -> None:
    assert dora.config["use_dora"]
    base, steps = _as_fp32(TINY / "model.safetensors"), 0
    for name, learned in dora.adapter.items():
        if "lora_magnitude_vector" not in name:
            continue
        module = name.removeprefix("base_model.model.").partition(".lora_magnitude")[0]
        before = np.linalg.norm(base[f"{module}.weight"], axis=1)
        moved = np.abs(learned - before)
        # Adam moves each by the rate a step
        assert 1e-4 < moved.max() < 2 * sum(dora.rates), name
        steps += 1
    assert steps == 3 * 7


def test_grouped_rows_are_of_like_length(plain: Trained, dora: Trained) -> None:
    def tokens(trained: Trained) -> list[int]:
        seen = [0, *(line["tokens"] for line in trained.steps)]
        return [after - before for before, after in pairwise(seen)]

    grouped, shuffled = tokens(dora), tokens(plain)
    # the longest rows come first, and steps differ as rows do
    assert grouped[0] == max(grouped) > max(shuffled)
    assert np.std(grouped) > 2 * np.std(shuffled)


def test_a_full_training_leaves_a_model_that_opens(full: Trained) -> None:
    from pipeline.base import open_base
    from pipeline.recipe.schema import Model

    model = full.folder / "model"
    made = {path.name for path in model.iterdir()}
    assert made == {path.name for path in TINY.iterdir()} - {"README.md"}
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert (model / name).read_bytes() == (TINY / name).read_bytes()
    opened = open_base(Model(base=str(model)))
    assert opened.config["dtype"] == "bfloat16"
    assert not (full.folder / "adapter").exists()
    learned, base = _as_fp32(model / "model.safetensors"), _as_fp32(TINY / "model.safetensors")
    assert learned.keys() == base.keys()
    # a norm's weights, near 1, move less than bf16 tells apart
    assert all((learned[name] != base[name]).any() for name in base if "norm" not in name)
    facts = full.facts
    assert facts["method"] == "full" and facts["load_in_4bit"] is False
    assert facts["trainable_parameters"] == facts["total_parameters"] > 1_900_000
    assert full.steps[-1]["loss"] < full.steps[0]["loss"]


def test_transformers_answers_with_the_model_of_a_full_training(full: Trained) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = full.folder / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype is torch.bfloat16
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("Tim has 2 cards.")["input_ids"]])
    assert model(ids).logits.isfinite().all()


def test_packing_without_a_gpu_is_said_and_recorded_as_grouped(full: Trained) -> None:
    assert "train.batching: grouped" in full.said
    assert full.facts["batching"] == "grouped"
    assert full.run.require("train").section["train"]["batching"] == "grouped"


@pytest.mark.parametrize(
    "setting", ["method=lora-8bit", "precision=bf16", "optimizer=paged_adamw_8bit"]
)
def test_what_a_cpu_cannot_do_is_refused_before_work(short: Demo, setting: str) -> None:
    done = short.pipe("train", "--set", f"train.{setting}", code=2)
    assert "needs a GPU; a CPU" in done.stderr
    assert not short.run.root.exists()


def _as_fp32(path: Path) -> dict[str, Any]:
    """numpy has no bf16."""
    from safetensors.torch import load_file as load_torch

    return {name: tensor.float().numpy() for name, tensor in load_torch(path).items()}
