"""The child process that trains with Unsloth, which patches every library it touches.

Started by `pipeline.train.stage`; sends {"step", ...} at every logged step.
"""

import json
import math
import resource
from pathlib import Path
from time import perf_counter
from typing import Any

from pipeline.child import Message, Send, serve
from pipeline.errors import PipeError

IGNORE = -100
OUT_OF_MEMORY = (
    "If memory ran out: --set train.batch_size=1 --set train.gradient_accumulation=16, "
    "or a smaller model.max_seq_length."
)


def train(job: Message, send: Send) -> Message:
    """Fine-tune `job["base"]` on the encoded rows; the adapter goes to `job["adapter"]`.

    Returns what really ran: devices, parameters, losses, and the figures of each logged step.
    Raises PipeError without a GPU where the recipe wants one, for a loss that is not a number,
    and for a training that changed nothing.
    """
    import torch

    settings = job["train"]
    _check_device(settings)
    from unsloth import FastLanguageModel  # first: it patches trl, transformers and peft

    started = perf_counter()
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=job["base"],
        max_seq_length=job["max_seq_length"],
        dtype={"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[
            settings["precision"]
        ],
        load_in_4bit=settings["method"] == "qlora",
        local_files_only=True,
    )
    lora = settings["lora"]
    model = FastLanguageModel.get_peft_model(
        model,
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=list(lora["target_modules"]),
        bias="none",
        use_gradient_checkpointing="unsloth" if settings["gradient_checkpointing"] else False,
        random_state=job["seed"],
        max_seq_length=job["max_seq_length"],
    )
    trainer = _trainer(model, tokenizer, job, send)
    loaded = perf_counter()
    try:
        result = trainer.train()
    except torch.OutOfMemoryError as error:
        raise PipeError(
            f"The GPU's memory ran out: {str(error).splitlines()[0]}", OUT_OF_MEMORY
        ) from None
    trained = perf_counter()
    eval_loss = _eval_loss(trainer)
    _check_learned(model, trainer.state.log_history, result.training_loss)
    _save(model, tokenizer, job)
    return {
        "facts": _facts(model, settings, trainer.args.optim),
        "final_loss": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1],
        "mean_loss": result.training_loss,
        "eval_loss": eval_loss,
        "steps": trainer.state.global_step,
        "seconds": {"load": loaded - started, "train": trained - loaded},
        "peak_memory_bytes": _peak_memory(),
    }


def _check_device(settings: Message) -> None:
    import torch

    if settings["device"] == "cpu":
        return
    if not torch.cuda.is_available():
        raise PipeError(
            "This recipe trains on a CUDA GPU and torch sees none here.",
            "On a CPU the shipped demo runs: pipe run -r demo. For the driver see: pipe doctor",
        )
    if settings["precision"] == "bf16" and not torch.cuda.is_bf16_supported(False):
        raise PipeError(
            f"{torch.cuda.get_device_name()} has no bf16.", "Use: --set train.precision=fp16"
        )


def _trainer(model: Any, tokenizer: Any, job: Message, send: Send) -> Any:
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    settings = job["train"]
    collator = Collator(job["pad_id"])
    rows = {name: Dataset.from_file(path) for name, path in job["encoded"].items()}
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=rows["train"],
        eval_dataset=rows["eval"] if len(rows["eval"]) else None,
        data_collator=collator,
        args=SFTConfig(
            output_dir=job["scratch"],
            per_device_train_batch_size=settings["batch_size"],
            per_device_eval_batch_size=settings["batch_size"],
            gradient_accumulation_steps=settings["gradient_accumulation"],
            num_train_epochs=settings["epochs"],
            max_steps=settings["max_steps"] or -1,
            learning_rate=settings["learning_rate"],
            lr_scheduler_type=settings["schedule"],
            warmup_steps=settings["warmup_steps"],
            weight_decay=settings["weight_decay"],
            max_grad_norm=settings["max_grad_norm"],
            optim=settings["optimizer"],
            bf16=settings["precision"] == "bf16",
            fp16=settings["precision"] == "fp16",
            max_length=job["max_seq_length"],
            gradient_checkpointing=settings["gradient_checkpointing"],
            logging_nan_inf_filter=False,
            logging_steps=1,
            logging_first_step=True,
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            seed=job["seed"],
            data_seed=job["seed"],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            dataloader_num_workers=0,
        ),
        callbacks=[_reporter(collator, send)],
    )
    # TRL makes the adapters of a 4-bit model bf16; PEFT would reload them in fp32
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return trainer


class Collator:
    """Pads a batch on the right; labels are the ids from `target_start` on, all else ignored."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id
        self.tokens = 0
        """Tokens seen so far, padding not counted."""

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), width), self.pad_id)
        labels = torch.full((len(rows), width), IGNORE)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for number, row in enumerate(rows):
            tokens = torch.tensor(row["input_ids"])
            start, end = row["target_start"], len(tokens)
            ids[number, :end] = tokens
            labels[number, start:end] = tokens[start:]
            mask[number, :end] = 1
            self.tokens += end
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def _reporter(collator: Collator, send: Send) -> Any:
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):  # type: ignore[misc]
        """Sends each logged step on, with tokens/s over the steps since the last one."""

        tokens, moment = 0, perf_counter()

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.moment = perf_counter()

        def on_log(self, _: Any, state: Any, __: Any, logs: Any = None, **___: Any) -> None:
            if not logs or "loss" not in logs:
                return
            if not math.isfinite(float(logs["loss"])):
                raise PipeError(
                    f"The loss is {logs['loss']} at step {state.global_step}.",
                    "Lower it: --set train.learning_rate=...",
                )
            now = perf_counter()
            rate = (collator.tokens - self.tokens) / max(now - self.moment, 1e-9)
            self.tokens, self.moment = collator.tokens, now
            send(
                {
                    "step": state.global_step,
                    "steps": state.max_steps,
                    "loss": float(logs["loss"]),
                    "grad_norm": float(logs["grad_norm"]),
                    "learning_rate": float(logs["learning_rate"]),
                    "tokens": collator.tokens,
                    "tokens_per_second": rate,
                }
            )

    return Reporter()


def _save(model: Any, tokenizer: Any, job: Message) -> None:
    """Adapter and tokenizer; the base by its name, where PEFT writes this machine's path."""
    folder = Path(job["adapter"])
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.chat_template = job["chat_template"]
    tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": job["base_name"], "revision": job["base_revision"]}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _eval_loss(trainer: Any) -> float | None:
    """Mean of the eval batches' losses, each over its supervised tokens; None without rows."""
    if trainer.eval_dataset is None:
        return None
    return float(trainer.evaluate()["eval_loss"])


def _check_learned(model: Any, history: list[dict[str, Any]], loss: float) -> None:
    """Raises PipeError for an adapter that is not finite, or as it was before."""
    # an infinite norm alone is fp16 finding its scale: that step was skipped
    norms = [float(entry["grad_norm"]) for entry in history if "grad_norm" in entry]
    learned = [p for name, p in model.named_parameters() if "lora_B" in name]
    finite = math.isfinite(loss) and all(p.isfinite().all() for p in learned)
    if not finite:
        raise PipeError(
            f"Training diverged: loss {loss}.", "Lower it: --set train.learning_rate=..."
        )
    if not any(p.any() for p in learned) or not any(0 < n < math.inf for n in norms):
        raise PipeError(
            f"Training changed nothing: gradient norms {norms[:3]}..., loss {loss}.",
            "Look at the rows: head runs/*/data/train.jsonl",
        )


def _facts(model: Any, settings: Message, optimizer: Any) -> Message:
    """What really ran, for the manifest."""
    import torch

    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(_numel(p) for p in model.parameters())
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "precision": settings["precision"],
        "optimizer": str(getattr(optimizer, "value", optimizer)),
        "load_in_4bit": bool(getattr(model, "is_loaded_in_4bit", False)),
        "trainable_parameters": trainable,
        "total_parameters": total,
    }


def _numel(parameter: Any) -> int:
    """Weights in a parameter; NF4 packs two into each byte."""
    state = getattr(parameter, "quant_state", None)
    return int(math.prod(state.shape)) if state is not None else int(parameter.numel())


def _peak_memory() -> dict[str, int]:
    import torch

    peak = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if torch.cuda.is_available():
        peak["gpu_allocated"] = torch.cuda.max_memory_allocated()
        peak["gpu_reserved"] = torch.cuda.max_memory_reserved()
    return peak


if __name__ == "__main__":
    serve({"train": train})
