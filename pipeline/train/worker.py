"""The process that trains with Unsloth, which patches every library it touches.

Started by `pipeline.train.launch`: alone, or as one of several by a launcher, which then all read
the same job; the first of them speaks for all. Sends {"measured", "speed"} for every step and
{"sample"} for every answer aloud.
"""

import math
import os
import resource
import signal
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

from pipeline.child import Message, Send, serve
from pipeline.errors import PipeError
from pipeline.run.disk import require_space
from pipeline.train import together
from pipeline.train.job import Job
from pipeline.train.model import as_fp32, check_device, open_model, save_result, weights_of
from pipeline.train.rows import Batches, batches_of
from pipeline.train.together import JOB


def train(_: Message, send: Send) -> Message:
    """Fine-tune as the job's file says, from its checkpoint on; the result goes beside it.

    Returns {"status": "done"} with what really ran, {"status": "stopped", "step"} after a signal,
    or {"status": "out_of_memory", "reason"}.
    Raises PipeError without a GPU where the recipe wants one, for a loss that is not a number, and
    for a training that changed nothing.
    """
    job = Job.read(Path(os.environ[JOB]))
    stop = _Stop()
    check_device(job.train)
    together.check_gpus(job.train.device)
    started = perf_counter()
    batches = batches_of(job)
    import unsloth  # noqa: F401 - first: it patches trl, transformers and peft

    if job.train.deterministic:
        _be_deterministic()
    model, tokenizer = open_model(job)
    together.meet(job.train.device)
    trainer, watch = _trainer(model, tokenizer, job, batches, send)
    stop.tell(watch)
    _check_disk(model, job)
    loaded = perf_counter()
    try:
        trainer.train(resume_from_checkpoint=job.resume)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        return {"status": "out_of_memory", "reason": (str(error) or "MemoryError").splitlines()[0]}
    if watch.stopped:
        together.wait_for_all()  # one that leaves ends its node, and the first may still be saving
        return {"status": "stopped", "step": trainer.state.global_step}
    return _finished(trainer, watch, job, {"load": loaded - started, "from": loaded})


def _trainer(model: Any, tokenizer: Any, job: Job, batches: Batches, send: Send) -> tuple[Any, Any]:
    import torch

    from pipeline.train.meter import StepMeter, flops_per_token, peak_flops
    from pipeline.train.trainer import trainer_of
    from pipeline.train.watch import Watch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    flops = flops_per_token(job.config, "full" if job.train.method == "full" else "frozen")
    peak = peak_flops(name, job.train.precision)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    meter = StepMeter(flops, peak and peak * processes)
    watch = Watch(job, batches, meter, send)
    trainer = trainer_of(model, tokenizer, job, batches, watch)
    as_fp32(model)
    return trainer, watch


def _finished(trainer: Any, watch: Any, job: Job, clock: dict[str, float]) -> Message:
    """Keep the weights that were asked for, check and save them."""
    trained = perf_counter()
    steps = trainer.state.global_step
    kept = watch.best_step if job.train.keep == "best" and watch.best_step else steps
    if kept != steps:
        trainer.load_best(kept)
    watch.measure_general()
    facts = _facts(trainer, job, watch.processes)
    _check_learned(trainer.model, watch.trace["metrics"])
    if trainer.args.should_save:
        save_result(trainer.model, trainer.processing_class, job, Path(job.folder) / "result")
    losses = [line["loss"] for line in watch.trace["metrics"] if "loss" in line]
    general = [line["general_loss"] for line in watch.trace["metrics"] if "general_loss" in line]
    facts |= {
        "steps": steps,
        "final_loss": losses[-1],
        "mean_loss": math.fsum(losses) / len(losses),
        "eval_loss": watch.eval_losses.get(kept),
        "best_step": watch.best_step,
        "kept_step": kept,
        "general_loss_before": general[0] if general else None,
        "general_loss_after": general[-1] if general else None,
    }
    return {
        "status": "done",
        "facts": facts,
        "trace": watch.trace,
        "seconds": {"load": clock["load"], "train": trained - clock["from"]},
        "peak_memory_bytes": _peak_memory(),
    }


class _Stop:
    """Ctrl-C and SIGTERM end the training after the step that runs, with a checkpoint."""

    def __init__(self) -> None:
        self._watch: Any = None
        self._asked = False
        if together.several():
            threading.Thread(target=together.wait_for_stops, args=(self._ask,), daemon=True).start()
            return
        for number in together.STOPS:
            signal.signal(number, self._ask)

    def tell(self, watch: Any) -> None:
        self._watch = watch
        watch.stop_asked = self._asked

    def _ask(self, *_: object) -> None:
        self._asked = True
        if self._watch is not None:
            self._watch.stop_asked = True


def _be_deterministic() -> None:
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def _out_of_memory(error: Exception) -> bool:
    """CUDA's own error, or the words of torch's CPU allocator (c10/core/impl/alloc_cpu.cpp)."""
    import torch

    said = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        "DefaultCPUAllocator: " in said and "memory" in said
    )


def _check_disk(model: Any, job: Job) -> None:
    """Room for the checkpoints that are kept at once, with 8 bytes of state a weight at most."""
    from pipeline.train.checkpoint import KEPT

    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    state = 2 if "8bit" in job.train.optimizer else 8
    at_once = KEPT + 1 + 2 * (job.train.keep == "best")
    needed = trained * (4 + state) * at_once + trained * 4
    require_space(Path(job.folder), needed, "Training")


def _check_learned(model: Any, trace: list[Message]) -> None:
    """Raises PipeError for weights that are not finite, or as they were before."""
    norms = [line.get("grad_norm") for line in trace if "loss" in line]
    if not all(p.isfinite().all() for p in model.parameters() if p.requires_grad):
        raise PipeError(
            "Training diverged: its weights are not finite.",
            "Lower the rate: pipe train --force --set train.learning_rate=...",
        )
    learned = [p for name, p in model.named_parameters() if "lora_B" in name]
    if not any(norms) or (learned and not any(p.any() for p in learned)):
        raise PipeError(
            f"Training changed nothing: gradient norms {norms[:3]}...",
            "Look at the rows: head runs/*/data/train.jsonl",
        )


def _facts(trainer: Any, job: Job, processes: int) -> Message:
    """What really ran, for the manifest."""
    import torch

    model, args = trainer.model, trainer.args
    device = next(model.parameters()).device
    return {
        "method": job.train.method,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": job.train.precision,
        "optimizer": str(getattr(args.optim, "value", args.optim)),
        "load_in_4bit": bool(getattr(model, "is_loaded_in_4bit", False)),
        "batching": job.train.batching,
        "padding_free": bool(getattr(args, "padding_free", False) or args.packing),
        "gradient_checkpointing": bool(model.is_gradient_checkpointing),
        "batch_size": args.per_device_train_batch_size,
        "gradient_accumulation": args.gradient_accumulation_steps,
        "processes": processes,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "total_parameters": sum(weights_of(p) for p in model.parameters()),
    }


def _peak_memory() -> dict[str, int]:
    import torch

    peak = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if torch.cuda.is_available():
        peak["gpu_allocated"] = torch.cuda.max_memory_allocated()
        peak["gpu_reserved"] = torch.cuda.max_memory_reserved()
    return peak


if __name__ == "__main__":
    if together.several():
        together.take_part(train)
    else:
        serve({"train": train})
