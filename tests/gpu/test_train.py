"""The demo's base trained on a GPU, by `pipe train` as typed: every method, and a kill."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from pipeline.run import Run

pytestmark = pytest.mark.gpu

ON_GPU = """\
extends: demo
train:
  device: cuda
  precision: bf16
  optimizer: adamw_8bit
  gradient_checkpointing: true
  max_steps: 5
  warmup_steps: 1
"""


@dataclass
class Demo:
    """A folder with a pipe.yaml, and `pipe` in it."""

    folder: Path

    def run(self, name: str = "demo") -> Run:
        return Run(self.folder / "runs" / name)

    def pipe(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def trained(self, name: str, *settings: str) -> Run:
        flags = [part for each in settings for part in ("--set", each)]
        self.pipe("prepare", "--run", name)
        self.pipe("train", "--run", name, *flags)
        return self.run(name)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "pipe.yaml").write_text(ON_GPU)
    return Demo(folder)


@pytest.fixture(scope="session")
def four_bit(demo: Demo) -> Run:
    return demo.trained("four-bit")


def steps_of(run: Run) -> list[dict[str, Any]]:
    lines = (run.folder("train") / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


def adapter_of(run: Run) -> dict[str, Any]:
    return dict(load_file(run.folder("train") / "adapter" / "adapter_model.safetensors"))


def assert_its_loss_fell(run: Run) -> None:
    steps = steps_of(run)
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5]
    assert all(math.isfinite(step["loss"]) for step in steps)
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.1


def assert_it_learned(run: Run) -> None:
    assert_its_loss_fell(run)
    changed = [t for name, t in adapter_of(run).items() if "lora_B" in name]
    assert len(changed) == 3 * 7 and all(abs(t).max() > 0 for t in changed)


def test_four_bits_learn_and_the_manifest_says_what_ran(four_bit: Run) -> None:
    assert_it_learned(four_bit)
    facts = four_bit.require("train").facts
    assert facts["load_in_4bit"] is True and facts["precision"] == "bf16"
    assert facts["optimizer"] == "adamw_8bit" and facts["device"] != "cpu"
    assert {str(t.dtype) for t in adapter_of(four_bit).values()} == {"float32"}


def test_the_log_names_the_memory_of_the_gpu(four_bit: Run) -> None:
    log = json.loads((four_bit.folder("train") / "training_log.json").read_text())
    assert 0 < log["peak_memory_bytes"]["gpu_allocated"] <= log["peak_memory_bytes"]["gpu_reserved"]
    assert "GB gpu_allocated" in (four_bit.folder("train") / "training_log.txt").read_text()


def test_sixteen_bits_learn(demo: Demo) -> None:
    run = demo.trained("sixteen-bit", "train.method=lora")
    assert_it_learned(run)
    assert run.require("train").facts["load_in_4bit"] is False


def test_fp16_learns(demo: Demo) -> None:
    assert_it_learned(demo.trained("fp16", "train.precision=fp16"))


def test_eight_bits_learn(demo: Demo) -> None:
    run = demo.trained("eight-bit", "train.method=lora-8bit")
    assert_it_learned(run)
    assert run.require("train").facts["method"] == "lora-8bit"


def test_all_weights_learn_and_are_kept_in_the_dtype_of_the_base(demo: Demo) -> None:
    run = demo.trained("full", "train.method=full", "train.learning_rate=0.0005")
    assert_its_loss_fell(run)
    weights = load_torch(run.folder("train") / "model" / "model.safetensors")
    base = load_torch(Path(__file__).parents[2] / "data" / "tiny-llama" / "model.safetensors")
    assert weights.keys() == base.keys()
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert all(not torch.equal(weights[name], base[name]) for name in base if "proj" in name)
    facts = run.require("train").facts
    assert facts["trainable_parameters"] == facts["total_parameters"]


def test_magnitudes_learn_too_with_dora(demo: Demo) -> None:
    run = demo.trained("dora", "train.lora.dora=true", "train.optimizer=paged_adamw_8bit")
    assert_it_learned(run)
    assert run.require("train").facts["optimizer"] == "paged_adamw_8bit"
    magnitudes = [t for name, t in adapter_of(run).items() if "magnitude" in name]
    assert len(magnitudes) == 3 * 7


def test_packed_rows_learn_as_separate_ones_do(demo: Demo) -> None:
    """A step of one bin holds the rows that the same step has apart: the same loss."""
    small = ("train.batch_size=1", "train.gradient_accumulation=1", "train.max_steps=5")
    packed = demo.trained("packed", "train.batching=packed", *small, "model.max_seq_length=512")
    assert all(math.isfinite(step["loss"]) for step in steps_of(packed))
    facts = packed.require("train").facts
    assert facts["batching"] == "packed"
    apart = demo.trained("apart", *small)
    filled = [b["tokens"] - a["tokens"] for a, b in pairwise(steps_of(packed))]
    single = [b["tokens"] - a["tokens"] for a, b in pairwise(steps_of(apart))]
    assert min(filled) > 400 > max(single) / 2
    # a base that knows the demo's language loses as much on a row alone as in a bin
    assert abs(steps_of(packed)[0]["loss"] - steps_of(apart)[0]["loss"]) < 1.0


def test_a_killed_training_ends_with_the_same_bytes_where_it_is_deterministic(demo: Demo) -> None:
    settings = ("train.deterministic=true", "train.save_every=1", "train.max_steps=20")
    flags = [part for each in settings for part in ("--set", each)]
    whole = demo.trained("whole", *settings)
    demo.pipe("prepare", "--run", "killed")
    begun = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "train", "--run", "killed", *flags],
        cwd=demo.folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    killed = demo.run("killed")
    first = killed.root / ".train.work" / "checkpoints" / "step-000001"
    over = time.monotonic() + 120
    while not first.exists() and begun.poll() is None and time.monotonic() < over:
        time.sleep(0.005)
    begun.kill()
    begun.wait()
    assert first.exists() and not killed.folder("train").exists()
    assert "Going on from the checkpoint" in demo.pipe("train", "--run", "killed", *flags)
    for name in ("adapter/adapter_model.safetensors", "metrics.jsonl"):
        assert (killed.folder("train") / name).read_bytes() == (
            whole.folder("train") / name
        ).read_bytes()


def test_the_adapter_answers_on_the_gpu_with_its_base_in_four_bits(four_bit: Run) -> None:
    from pipeline.base import open_base
    from pipeline.chat import Encoder, chat_format
    from pipeline.engines.completion import Decoding
    from pipeline.engines.loading import load_model
    from pipeline.engines.transformers import TransformersEngine
    from pipeline.recipe.schema import Model

    base = open_base(Model(base="builtin:tiny-llama"))
    encoder = Encoder(base.folder / "tokenizer.json", chat_format("llama3.2-reasoning"))
    adapter = four_bit.folder("train") / "adapter"
    model = load_model("adapter", base, adapter, bits=4, device="cuda")
    engine = TransformersEngine("adapter", model, encoder)
    chats = [[{"role": "user", "content": text}] for text in ("Hello", "How much is 1 + 2?")]
    done = list(engine.answers(chats, Decoding(8)))
    engine.close()
    assert len(done) == 2 and all(0 < each.tokens <= 8 for each in done)
