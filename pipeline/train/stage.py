"""The train stage: hand the encoded rows to a child process, publish the adapter and its logs."""

import json
from pathlib import Path
from typing import Any

from pipeline.base import Base
from pipeline.chat import Encoder, chat_format
from pipeline.child import Child
from pipeline.errors import ChangedInput, PipeError
from pipeline.recipe import Recipe
from pipeline.run import Emit, Manifest, Note, Progress, Run, versions_of
from pipeline.train.worker import OUT_OF_MEMORY


def train(recipe: Recipe, run: Run, base: Base, emit: Emit, *, force: bool = False) -> Manifest:
    """Fine-tune on the run's encoded rows and publish `train/`: adapter, metrics and logs.

    Raises PipeError when the rows were encoded for another base, format or length, or when
    training fails.
    """
    plan = _planned(recipe, run, base)
    _check_rows(recipe, run, base, plan)
    if not force and run.is_done(plan):
        emit(Note("train is up to date."))
        return run.require("train")
    with run.publish("train") as draft:
        job = _job(recipe, run, base, draft.folder)
        steps, result = _in_child(job, recipe, emit)
        _write_logs(draft.folder, steps, result)
        draft.manifest = _finished(plan, result)
    emit(Note(f"Trained {result['steps']} steps, final loss {result['final_loss']:.4f}."))
    return run.require("train")


def check_device(recipe: Recipe) -> None:
    """Raises PipeError where the recipe wants a GPU and no driver is here, before any download.

    The child asks torch itself; this look costs nothing.
    """
    drivers = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA, WSL, AMD
    if recipe.train.device == "cuda" and not any(Path(path).exists() for path in drivers):
        raise PipeError(
            f"The recipe {recipe.name} trains on a GPU and this machine has no driver for one.",
            "On a CPU the shipped demo runs: pipe run -r demo. What is missing: pipe doctor",
        )


def _check_rows(recipe: Recipe, run: Run, base: Base, plan: Manifest) -> None:
    """Other ids than the base's, or longer rows than asked, would train without a word."""
    data = run.manifest("data")
    assert data is not None
    data.check_inputs(base.tokenizer_entries(), "Encode for this base: pipe prepare")
    longest = data.section["model"]["max_seq_length"]
    if data.chat_format != plan.chat_format or longest != recipe.model.max_seq_length:
        raise ChangedInput(
            f"{run.folder('data')} was encoded for another chat format or length.",
            "Encode again: pipe prepare",
        )


def _planned(recipe: Recipe, run: Run, base: Base) -> Manifest:
    return Manifest(
        stage="train",
        section={
            "train": recipe.train.model_dump(mode="json"),
            "model": recipe.model.model_dump(mode="json"),
        },
        inputs=base.entries() | run.input_entry("data"),
        chat_format=chat_format(recipe.chat.format).fingerprint(),
        seed=recipe.seed,
        versions=versions_of(
            "unsloth", "unsloth_zoo", "torch", "transformers", "trl", "peft", "bitsandbytes"
        ),
    )


def _finished(plan: Manifest, result: dict[str, Any]) -> Manifest:
    from dataclasses import replace

    losses = {key: result[key] for key in ("final_loss", "mean_loss", "eval_loss")}
    return replace(plan, counts={"steps": result["steps"]}, facts={**result["facts"], **losses})


def _job(recipe: Recipe, run: Run, base: Base, draft: Path) -> dict[str, Any]:
    encoder = Encoder(base.folder / "tokenizer.json", chat_format(recipe.chat.format))
    encoded = run.folder("data") / "encoded"
    return {
        "base": str(base.folder.resolve()),
        "base_name": base.name,
        "base_revision": base.revision,
        "max_seq_length": recipe.model.max_seq_length,
        "train": recipe.train.model_dump(mode="json"),
        "seed": recipe.seed,
        "pad_id": encoder.pad_id,
        "chat_template": encoder.format.jinja,
        "encoded": {name: str(encoded / f"{name}.arrow") for name in ("train", "eval")},
        "adapter": str(draft / "adapter"),
        "scratch": str(draft / ".scratch"),
    }


def _in_child(
    job: dict[str, Any], recipe: Recipe, emit: Emit
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The logged steps and the result of the training."""
    steps: list[dict[str, Any]] = []
    emit(Note("Loading Unsloth and the base."))
    environment = _environment(recipe.train.device, Path(job["scratch"]))
    with Child("pipeline.train.worker", hint=OUT_OF_MEMORY, environment=environment) as child:
        for message in child.stream("train", **job):
            if "result" in message:
                return steps, message["result"]
            steps.append(message)
            emit(_progress(message))
    raise AssertionError("the child ended without a result")


def _environment(device: str, scratch: Path) -> dict[str, str]:
    """Nothing installed, nothing sent, nothing fetched; the same kernels on every processor."""
    common = {
        "UNSLOTH_AUTO_INSTALL": "0",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_COMPILE_LOCATION": str(scratch / "compiled"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(scratch / "datasets"),
        "TOKENIZERS_PARALLELISM": "false",
        # PEFT writes a set: its order follows string hashes
        "PYTHONHASHSEED": "0",
    }
    if device == "cpu":
        return common | {
            "CUDA_VISIBLE_DEVICES": "",
            "UNSLOTH_FORCE_CPU": "1",
            "UNSLOTH_CPU_BF16": "0",
        }
    return common | {"UNSLOTH_DISABLE_CPU_FALLBACK": "1"}


def _progress(step: dict[str, Any]) -> Progress:
    figures = {
        "loss": f"{step['loss']:.4f}",
        "grad norm": f"{step['grad_norm']:.2f}",
        "tokens/s": f"{step['tokens_per_second']:.0f}",
    }
    return Progress("train", step["step"], step["steps"], "steps", figures)


def _write_logs(folder: Path, steps: list[dict[str, Any]], result: dict[str, Any]) -> None:
    """metrics.jsonl holds what repeats; the logs hold times and memory too."""
    import shutil

    shutil.rmtree(folder / ".scratch", ignore_errors=True)
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in steps:
            kept = {key: step[key] for key in step if key != "tokens_per_second"}
            file.write(json.dumps(kept, sort_keys=True) + "\n")
    log = {**result, "steps_logged": steps}
    (folder / "training_log.json").write_text(
        json.dumps(log, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    (folder / "training_log.txt").write_text(_log_text(steps, result), encoding="utf-8")


def _log_text(steps: list[dict[str, Any]], result: dict[str, Any]) -> str:
    facts = result["facts"]
    share = facts["trainable_parameters"] / facts["total_parameters"]
    peak = result["peak_memory_bytes"]
    lines = [
        f"device                {facts['device']}, {facts['precision']}",
        f"trainable parameters  {facts['trainable_parameters']:,} ({share:.2%})",
        f"total parameters      {facts['total_parameters']:,}",
        f"steps                 {result['steps']}",
        f"duration              {result['seconds']['train']:.1f} s (loading "
        f"{result['seconds']['load']:.1f} s)",
        *(f"peak memory           {size / 1e9:.2f} GB {kind}" for kind, size in peak.items()),
        f"final loss            {result['final_loss']:.4f}",
        "eval loss             "
        + ("no eval rows" if result["eval_loss"] is None else f"{result['eval_loss']:.4f}"),
        "",
        "  step      loss  grad norm  learning rate  tokens/s",
    ]
    lines += [
        f"{s['step']:6d}  {s['loss']:8.4f}  {s['grad_norm']:9.3f}  {s['learning_rate']:13.3e}  "
        f"{s['tokens_per_second']:8.0f}"
        for s in steps
    ]
    return "\n".join(lines) + "\n"
