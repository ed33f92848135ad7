"""One contender of the training race on a GPU; its figures go to a JSON file.

python scripts/gpu/contender.py pipe --base BASE --rows ENCODED --out FILE [settings]

pipe          pipeline.train.worker, as `pipe train` runs it
free          the same, its batches flattened: no padding, Unsloth's varlen path
unsloth       Unsloth as its notebooks use it: SFTTrainer with its own collator
trl           Transformers, PEFT, bitsandbytes and TRL's SFTTrainer, without Unsloth

All train the same rows in the same order with the same settings. A step's time is taken between
two synchronisations; the first steps compile and are left out of the means. With --gate FILE it
warms up, writes FILE.ready, waits for FILE, and ends with its last step: so several can warm up at
once and be timed one by one.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from meter import Meter, keep

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The recipe's `train` section."""
    return {
        "device": options.device,
        "precision": options.precision,
        "load_in_4bit": not options.sixteen_bit,
        "epochs": 1.0,
        "max_steps": options.steps,
        "batch_size": options.batch,
        "gradient_accumulation": options.accumulation,
        "learning_rate": 2e-4,
        "warmup_steps": 5,
        "schedule": "cosine",
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "optimizer": "adamw_8bit" if options.device == "cuda" else "adamw_torch",
        "gradient_checkpointing": not options.no_checkpointing,
        "log_every": 1,
        "lora": {"r": 32, "alpha": 32, "dropout": 0.0, "target_modules": PROJECTIONS},
    }


def job_of(options: argparse.Namespace) -> dict[str, Any]:
    scratch = options.out.with_suffix("")
    return {
        "base": str(options.base.resolve()),
        "base_name": "random",
        "base_revision": None,
        "max_seq_length": options.length,
        "train": settings_of(options),
        "seed": 3407,
        "pad_id": options.pad,
        "chat_template": "",
        "encoded": {name: str(options.rows / f"{name}.arrow") for name in ("train", "eval")},
        "adapter": str(scratch / "adapter"),
        "scratch": str(scratch / "scratch"),
    }


def environment(options: argparse.Namespace) -> dict[str, str]:
    """What `pipe train` gives to its child."""
    from pipeline.train.stage import _environment

    return _environment(options.device, options.out.with_suffix("") / "scratch")


def run_pipe(job: dict[str, Any], meter: Meter) -> None:
    from pipeline.train import worker

    make = worker._trainer
    worker._trainer = lambda *parts: meter.watch(make(*parts))
    result = worker.train(job, lambda _: None)
    print("pipe result", json.dumps(result), flush=True)


def run_free(job: dict[str, Any], meter: Meter) -> None:
    import torch

    from pipeline.train import worker

    class Flat(worker.Collator):
        """One row of all tokens; Unsloth adds where each document ends."""

        padding_free = True

        def torch_call(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
            ids = [torch.tensor(row["input_ids"]) for row in rows]
            labels = [each.clone() for each in ids]
            for row, each in zip(rows, labels, strict=True):
                each[: row["target_start"]] = worker.IGNORE
                each[0] = worker.IGNORE
            places = [torch.arange(len(each)) for each in ids]
            self.tokens += sum(map(len, ids))
            parts = {"input_ids": ids, "labels": labels, "position_ids": places}
            return {name: torch.cat(each)[None] for name, each in parts.items()}

        def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
            return self.torch_call(rows)

    make = worker._trainer

    def flat(model: Any, *parts: Any) -> Any:
        from unsloth.utils.packing import enable_padding_free_metadata

        trainer = make(model, *parts)
        enable_padding_free_metadata(model, trainer)
        return meter.watch(trainer)

    worker.Collator, worker._trainer = Flat, flat
    worker.train(job, lambda _: None)


def run_unsloth(job: dict[str, Any], meter: Meter) -> None:
    import torch
    from unsloth import FastLanguageModel

    types = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    settings = job["train"]
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=job["base"],
        max_seq_length=job["max_seq_length"],
        dtype=types[settings["precision"]],
        load_in_4bit=settings["load_in_4bit"],
        local_files_only=True,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=settings["lora"]["r"],
        lora_alpha=settings["lora"]["alpha"],
        target_modules=PROJECTIONS,
        use_gradient_checkpointing="unsloth" if settings["gradient_checkpointing"] else False,
        random_state=job["seed"],
        max_seq_length=job["max_seq_length"],
    )
    _train(model, tokenizer, job, meter)


def run_trl(job: dict[str, Any], meter: Meter) -> None:
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    settings = job["train"]
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[settings["precision"]]
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        job["base"],
        dtype=dtype,
        device_map={"": 0 if settings["device"] == "cuda" else "cpu"},
        quantization_config=quantization if settings["load_in_4bit"] else None,
    )
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    lora = LoraConfig(
        r=settings["lora"]["r"],
        lora_alpha=settings["lora"]["alpha"],
        target_modules=PROJECTIONS,
        task_type="CAUSAL_LM",
    )
    _train(model, tokenizer, job, meter, peft_config=lora)


def _train(model: Any, tokenizer: Any, job: dict[str, Any], meter: Meter, **more: Any) -> None:
    """SFTTrainer with its own collator, over rows that are encoded already."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    settings = job["train"]
    rows = Dataset.from_file(job["encoded"]["train"]).map(
        labelled, remove_columns=["target_start"], load_from_cache_file=False
    )
    config = SFTConfig(
        output_dir=job["scratch"],
        per_device_train_batch_size=settings["batch_size"],
        gradient_accumulation_steps=settings["gradient_accumulation"],
        max_steps=settings["max_steps"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type=settings["schedule"],
        warmup_steps=settings["warmup_steps"],
        weight_decay=settings["weight_decay"],
        max_grad_norm=settings["max_grad_norm"],
        optim=settings["optimizer"],
        bf16=settings["precision"] == "bf16",
        max_length=job["max_seq_length"],
        gradient_checkpointing=settings["gradient_checkpointing"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=job["seed"],
        data_seed=job["seed"],
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model=model, processing_class=tokenizer, train_dataset=rows, args=config, **more
    )
    meter.watch(trainer).train()


def labelled(row: dict[str, Any]) -> dict[str, Any]:
    """The row with labels: -100 before `target_start`."""
    start = row["target_start"]
    return {"labels": [-100] * start + row["input_ids"][start:]}


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=RUNS)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True, help="a run's data/encoded")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pad", type=int, default=128004)
    parser.add_argument("--sixteen-bit", action="store_true", help="the base is not quantized")
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--profile", action="store_true", help="the last step's kernels")
    parser.add_argument("--deterministic", action="store_true", help="ask torch for it")
    parser.add_argument("--gate", type=Path)
    return parser.parse_args()


RUNS = {"pipe": run_pipe, "free": run_free, "unsloth": run_unsloth, "trl": run_trl}


def main() -> None:
    sys.path.insert(0, str(Path.cwd()))
    options = options_of()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if options.kind != "trl":
        os.environ |= environment(options)
    if options.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        import torch

        torch.use_deterministic_algorithms(True, warn_only=True)
    meter = Meter(options)
    RUNS[options.kind](job_of(options), meter)
    keep(meter)


if __name__ == "__main__":
    main()
