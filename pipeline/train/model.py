"""Opens the base as the method wants it: NF4, 8 or 16 bits under an adapter, or trained in full."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from pipeline.errors import PipeError
from pipeline.recipe.training import Train
from pipeline.train.job import Job

_COPIED = ("*config.json", "tokenizer.json", "special_tokens_map.json", "vocab.json", "merges.txt")


def check_device(train: Train) -> None:
    """Raises PipeError where torch sees no GPU and one is asked for, or one without bf16."""
    import torch

    if train.device == "cpu":
        return
    if not torch.cuda.is_available():
        raise PipeError(
            "This recipe trains on a CUDA GPU and torch sees none here.",
            "On a CPU the shipped demo runs: pipe run -r demo. For the driver see: pipe doctor",
        )
    if train.precision == "bf16" and not torch.cuda.is_bf16_supported(False):
        raise PipeError(
            f"{torch.cuda.get_device_name()} has no bf16.", "Use: --set train.precision=fp16"
        )


def open_model(job: Job) -> tuple[Any, Any]:
    """The model to train and its tokenizer; Unsloth must have been imported.

    Raises PipeError where Unsloth opens the base otherwise than asked.
    """
    import torch
    from unsloth import FastLanguageModel

    train = job.train
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=job.base,
        max_seq_length=job.max_seq_length,
        dtype=dtypes[train.precision],
        load_in_4bit=train.method == "qlora",
        load_in_8bit=train.method == "lora-8bit",
        full_finetuning=train.method == "full",
        # a full training has nothing but this to tell it
        use_gradient_checkpointing=_checkpointing(train),
        local_files_only=True,
        **_master_weights(train),
    )
    if train.method != "full":
        _check_bits(model, train)
        model = _with_adapter(model, job)
        _check_adapter(model, train)
    tokenizer.pad_token_id = job.pad_id
    return model, tokenizer


def as_fp32(model: Any) -> None:
    """Make what is trained fp32: TRL leaves the adapters of a 4-bit model bf16."""
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def save_result(model: Any, tokenizer: Any, job: Job, folder: Path) -> None:
    """`adapter/` with its tokenizer, or `model/` for a full training, under `folder`."""
    if job.train.method == "full":
        return _save_full(model, job, folder / "model")
    adapter = folder / "adapter"
    model.save_pretrained(adapter, safe_serialization=True)
    tokenizer.chat_template = job.chat_template
    tokenizer.save_pretrained(adapter)
    (adapter / "README.md").unlink(missing_ok=True)
    # the base by its name, where PEFT writes this machine's path
    _rewrite(
        adapter / "adapter_config.json",
        {"base_model_name_or_path": job.base_name, "revision": job.base_revision},
    )


def weights_of(parameter: Any) -> int:
    """Weights in a parameter; NF4 packs two into each byte."""
    state = getattr(parameter, "quant_state", None)
    return int(math.prod(state.shape)) if state is not None else int(parameter.numel())


def _with_adapter(model: Any, job: Job) -> Any:
    from unsloth import FastLanguageModel

    lora = job.train.lora
    return FastLanguageModel.get_peft_model(
        model,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        bias="none",
        use_gradient_checkpointing=_checkpointing(job.train),
        random_state=job.seed,
        max_seq_length=job.max_seq_length,
        use_rslora=lora.rslora,
        **({"use_dora": True} if lora.dora else {}),
    )


def _checkpointing(train: Train) -> str | bool:
    """Unsloth's own way, which on a GPU moves activations to RAM, or none."""
    return "unsloth" if train.gradient_checkpointing else False


def _master_weights(train: Train) -> dict[str, bool]:
    """Asks for fp32 weights and bf16 products in a full training.

    Unsloth takes bf16 weights otherwise and no autocast, and `as_fp32` would make all of it fp32.
    """
    on_gpu = train.device == "cuda" and train.method == "full"
    return {"float32_mixed_precision": True} if on_gpu else {}


def _check_adapter(model: Any, train: Train) -> None:
    """Raises PipeError for an adapter that is not as asked, whatever Unsloth printed about it."""
    lora, made = train.lora, model.peft_config["default"]
    asked = {
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rslora,
        "use_dora": lora.dora,
    }
    other = {key: getattr(made, key) for key, value in asked.items() if getattr(made, key) != value}
    if other:
        raise PipeError(
            f"Unsloth made another adapter than the recipe asks: {other}.",
            "Leave these settings out of the recipe's train.lora.",
        )


def _check_bits(model: Any, train: Train) -> None:
    """Unsloth falls back to 16 bits by a printed line alone, as for hidden sizes below 64."""
    for method, flag in (("qlora", "is_loaded_in_4bit"), ("lora-8bit", "is_loaded_in_8bit")):
        if train.method == method and not getattr(model, flag, False):
            raise PipeError(
                f"Unsloth does not open this base as {method} asks.", "Use: --set train.method=lora"
            )


def _save_full(model: Any, job: Job, folder: Path) -> None:
    """The whole model in the base's own dtype; all but the weights is the base's own."""
    import torch

    dtype = getattr(torch, job.config.get("dtype") or job.config["torch_dtype"])
    model.to(dtype).save_pretrained(folder)
    for path in folder.glob("*"):
        if ".safetensors" not in path.name:
            path.unlink()
    for pattern in _COPIED:
        for path in Path(job.base).glob(pattern):
            shutil.copyfile(path, folder / path.name)
    _rewrite(folder / "tokenizer_config.json", {"chat_template": job.chat_template})


def _rewrite(path: Path, values: dict[str, Any]) -> None:
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    config |= values
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
