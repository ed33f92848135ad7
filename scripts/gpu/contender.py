"""One contender of scripts/bench_train.py; its figures go to a JSON file.

python scripts/gpu/contender.py pipe --base BASE --rows ENCODED --out FILE [settings]

pipe          pipeline.train.worker with a Job, as `pipe train` runs it
peft          Transformers' Trainer and PEFT, the base by bitsandbytes where it is quantized
notebook      Unsloth as its notebooks use it: SFTTrainer and train_on_responses_only

All train the same rows in the same order with the same settings. With --gate FILE it warms up,
writes FILE.ready, waits for FILE, and ends with its last step: so several can warm up at once and
be timed one by one.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from meter import WARM_UP, Meter, keep

SEED = 3407
HEADS = (
    "<|start_header_id|>user<|end_header_id|>\n\n",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
)
"""What a question and a reply begin with."""


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The recipe's `train` section: what Unsloth's notebooks for Llama 3.2 take."""
    on_gpu = options.device == "cuda"
    return {
        "method": options.method,
        "device": options.device,
        "precision": "bf16" if on_gpu else "fp32",
        "deterministic": options.deterministic,
        "max_steps": options.steps,
        "batch_size": options.batch,
        "gradient_accumulation": options.accumulation,
        "batching": options.batching,
        "learning_rate": 2e-4,
        "warmup_steps": 5,
        "schedule": "linear",
        "weight_decay": 0.001,
        "optimizer": "adamw_8bit" if on_gpu else "adamw_torch",
        "gradient_checkpointing": on_gpu and not options.no_checkpointing,
        "save_every": 10**6,
        "lora": {"r": 16, "alpha": 16},
    }


def job_of(options: argparse.Namespace) -> Any:
    from pipeline.recipe.training import Train
    from pipeline.train.job import Job

    folder = options.out.with_suffix("").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((options.base / "config.json").read_text(encoding="utf-8"))
    return Job(
        base=str(options.base.resolve()),
        base_name="bench",
        base_revision=None,
        config=config,
        max_seq_length=options.length,
        train=Train.model_validate(settings_of(options)),
        seed=SEED,
        pad_id=config["pad_token_id"],
        end_ids=(config["eos_token_id"],),
        chat_template="",
        rows="",
        encoded={name: str(options.rows / f"{name}.arrow") for name in ("train", "eval")},
        samples=[],
        folder=str(folder),
        batch_size=options.batch,
        global_batch=options.batch * options.accumulation,
    )


def run_pipe(job: Any, meter: Meter) -> None:
    from pipeline.train import worker

    make = worker._trainer

    def watched(*parts: Any) -> Any:
        trainer, *rest = make(*parts)
        return meter.watch(trainer), *rest

    worker._trainer = watched
    os.environ[worker.JOB] = str(job.write(Path(job.folder) / "job.json"))
    result = worker.train({}, lambda _: None)
    print("pipe result", json.dumps({key: result[key] for key in ("status", "facts")}), flush=True)


def run_peft(job: Any, meter: Meter) -> None:
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        BitsAndBytesConfig,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    train = job.train
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[train.precision]
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        job.base,
        dtype=dtype,
        device_map={"": 0 if train.device == "cuda" else "cpu"},
        quantization_config=quantization if train.method == "qlora" else None,
    )
    if train.method == "qlora":
        checkpointing = train.gradient_checkpointing
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    elif train.gradient_checkpointing:
        model.enable_input_require_grads()
    torch.manual_seed(job.seed)
    lora = LoraConfig(
        r=train.lora.r,
        lora_alpha=train.lora.alpha,
        target_modules=list(train.lora.target_modules),
        task_type="CAUSAL_LM",
    )
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    tokenizer.pad_token_id = job.pad_id
    trainer = Trainer(
        model=get_peft_model(model, lora),
        args=TrainingArguments(remove_unused_columns=False, **_arguments(job)),
        train_dataset=_rows(job),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    meter.watch(trainer).train()


def run_notebook(job: Any, meter: Meter) -> None:
    from pipeline.train.model import open_model  # by Unsloth, which has to come before trl

    model, tokenizer = open_model(job)
    from trl import SFTConfig, SFTTrainer
    from unsloth.chat_templates import train_on_responses_only

    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=_rows(job).remove_columns("labels"),
        args=SFTConfig(max_length=job.max_seq_length, **_arguments(job)),
    )
    question, reply = HEADS
    trainer = train_on_responses_only(
        trainer, instruction_part=question, response_part=reply, num_proc=1
    )
    meter.watch(trainer).train()


def _rows(job: Any) -> Any:
    """The rows in the order in which `pipe train` takes them."""
    from pipeline.train.rows import batches_of, labelled

    return labelled(job.encoded["train"]).select(batches_of(job).order.flat())


def _arguments(job: Any) -> dict[str, Any]:
    """What the notebooks and a plain Trainer are told alike."""
    train = job.train
    return {
        "output_dir": str(Path(job.folder) / "output"),
        "per_device_train_batch_size": job.batch_size,
        "gradient_accumulation_steps": job.global_batch // job.batch_size,
        "max_steps": train.max_steps,
        "train_sampling_strategy": "sequential",
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.schedule,
        "warmup_steps": train.warmup_steps,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        # what Unsloth makes of adamw_torch on a CPU
        "optim": "adamw_8bit" if train.device == "cuda" else "adamw_torch_fused",
        "bf16": train.precision == "bf16",
        "use_cpu": train.device == "cpu",
        "gradient_checkpointing": train.gradient_checkpointing,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "seed": job.seed,
        "disable_tqdm": True,
    }


RUNS = {"pipe": run_pipe, "peft": run_peft, "notebook": run_notebook}


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=RUNS)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True, help="train.arrow and eval.arrow")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="qlora", choices=["qlora", "lora", "lora-8bit", "full"])
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--batching", default="shuffled")
    parser.add_argument("--padding", choices=["auto", "padded", "padding_free"], default="auto")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--warm-up", type=int, default=WARM_UP)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--profile", action="store_true", help="the last step's kernels")
    parser.add_argument("--gate", type=Path)
    return parser.parse_args()


def main() -> None:
    sys.path.insert(0, str(Path.cwd()))
    options = options_of()
    job = job_of(options)
    if options.kind != "peft":
        from pipeline.train.launch import _environment

        os.environ |= _environment(job.train, Path(job.folder) / "scratch")
        # what Unsloth chooses by itself, for a card that it knows
        os.environ["UNSLOTH_PADDING_CHOICE"] = options.padding
    meter = Meter(options)
    RUNS[options.kind](job, meter)
    keep(meter)


if __name__ == "__main__":
    main()
