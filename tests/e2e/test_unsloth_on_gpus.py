"""What Unsloth's GPU code makes of our rows, seen without a GPU.

UNSLOTH_ALLOW_CPU=1 is its own spoof for tests: the code for a GPU, rewritten trainers and all, on
tensors of a CPU. Nothing is trained; the trainer is built and asked for a batch.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
BASE = ROOT / "data" / "tiny-llama"
LENGTHS = (40, 90, 200, 60, 300, 120)
SPOOF = {
    "UNSLOTH_ALLOW_CPU": "1",
    "UNSLOTH_AUTO_INSTALL": "0",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
}


def batch_of(batching: str, folder: Path) -> dict[str, Any]:
    """The first micro-batch of the trainer that `pipe train` would build, and how it is built."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from pipeline.recipe.training import Train
    from pipeline.train.job import Job
    from pipeline.train.meter import StepMeter
    from pipeline.train.rows import batches_of
    from pipeline.train.trainer import trainer_of
    from pipeline.train.watch import Watch

    train = Train.model_validate(
        {"precision": "fp32", "optimizer": "adamw_torch", "batching": batching, "max_steps": 1}
        | {"gradient_checkpointing": False}
    )
    job = Job(
        base=str(BASE),
        base_name="tiny",
        base_revision=None,
        config={},
        max_seq_length=512,
        train=train,
        seed=7,
        pad_id=639,
        end_ids=(638,),
        chat_template="",
        rows="",
        encoded={"train": str(folder / "rows.arrow"), "eval": str(folder / "rows.arrow")},
        samples=[],
        folder=str(folder / batching),
        batch_size=2,
        global_batch=2,
    )
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    # as Unsloth's loaders mark a model; without it 16-bit autocast is asked of a CPU
    model.max_seq_length, model._unsloth_forced_float32 = 512, True
    batches = batches_of(job)
    watch = Watch(job, batches, StepMeter(1.0, None), lambda _: None)
    trainer = trainer_of(model, AutoTokenizer.from_pretrained(BASE), job, batches, watch)
    rows = [batches.dataset[row] for row in batches.order.rows_of(1)]
    batch = trainer.data_collator(rows)
    return {
        "trainer": type(trainer).__mro__[1].__name__,
        "padding_free": trainer.args.padding_free,
        "lengths": [row.get("seq_lengths", [len(row["input_ids"])]) for row in rows],
        "labels": [row["labels"] for row in rows],
        "batch": {name: tensor.tolist() for name, tensor in batch.items()},
    }


def show(folder: Path) -> None:
    """What the child process runs."""
    import unsloth  # noqa: F401 - first, as in the worker
    from unsloth.models.rl import patch_trl_rl_trainers
    from unsloth.trainer import _patch_trl_trainer

    # its spoof leaves TRL alone, unlike a GPU
    patch_trl_rl_trainers()
    _patch_trl_trainer()
    found = {batching: batch_of(batching, folder) for batching in ("shuffled", "packed")}
    (folder / "found.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    import pyarrow as pa

    folder = tmp_path_factory.mktemp("spoof")
    draw = np.random.default_rng(3)
    ids = [draw.integers(0, 600, length).tolist() for length in LENGTHS]
    columns = {"input_ids": pa.array(ids, pa.list_(pa.int32())), "target_start": [10] * len(ids)}
    table = pa.table(columns)
    with pa.ipc.new_stream(str(folder / "rows.arrow"), table.schema) as file:
        file.write_table(table)
    code = f"from pathlib import Path; import {__name__} as it; it.show(Path({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **SPOOF, "UNSLOTH_COMPILE_LOCATION": str(folder / "compiled")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return result


@pytest.mark.parametrize("batching", ["shuffled", "packed"])
def test_rows_are_laid_one_after_the_other_without_padding(found: Any, batching: str) -> None:
    seen = found[batching]
    assert seen["trainer"] == "UnslothSFTTrainer" and seen["padding_free"] is True
    lengths = [length for row in seen["lengths"] for length in row]
    batch = seen["batch"]
    assert batch["packed_seq_lengths"] == lengths
    assert [len(row) for row in batch["input_ids"]] == [sum(lengths)]
    # every row begins at place 0 again, and sees no other
    assert batch["position_ids"] == [[place for size in lengths for place in range(size)]]
    assert "attention_mask" not in batch


def test_only_the_replies_are_learned_whatever_the_batching(found: Any) -> None:
    for seen in found.values():
        wanted = [label for row in seen["labels"] for label in row]
        assert seen["batch"]["labels"] == [wanted]
        assert 0 < sum(label == -100 for label in wanted) < len(wanted) / 4


def test_a_bin_holds_several_rows(found: Any) -> None:
    assert max(map(len, found["packed"]["lengths"])) > 1
    assert all(sum(row) <= 512 for row in found["packed"]["lengths"])
