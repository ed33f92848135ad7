"""Times a Trainer's steps, counts its tokens, and writes both down."""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

STARTED = perf_counter()
WARM_UP = 3
"""Steps left out of the means, unless told otherwise: they compile and fill caches."""
PACKAGES = ("torch", "triton", "transformers", "trl", "peft", "bitsandbytes", "unsloth")


class Meter:
    """Times the steps of a Trainer and counts the tokens it is given.

    A step lasts until the next one's end, logging and loading of rows included.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.ends: list[float] = []
        self.tokens: list[int] = []
        self.padded: list[int] = []
        self.logged: list[dict[str, float]] = []
        self.options = options
        self.kernels: dict[str, Any] = {}
        self._profiler: Any = None

    def watch(self, trainer: Any) -> Any:
        """The same trainer, watched."""
        inner = trainer.training_step

        def training_step(model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
            mask = inputs.get("attention_mask")
            ids = inputs["input_ids"]
            self.tokens[-1] += int(mask.sum()) if mask is not None else ids.numel()
            self.padded[-1] += ids.numel()
            return inner(model, inputs, *rest, **named)

        trainer.training_step = training_step
        trainer.add_callback(_callback(self))
        return trainer

    @property
    def steps(self) -> int:
        """Steps that are over; the first end is the beginning of all."""
        return max(len(self.ends) - 1, 0)

    def start(self) -> None:
        self.ends.append(_now())

    def begin(self) -> None:
        if self.steps == self.options.warm_up and self.options.gate:
            wait_for(self.options.gate)
            self.ends[-1] = _now()
        if self.steps == self.options.steps - 1 and self.options.profile:
            self._profiler = _profiler()
            self._profiler.__enter__()
        self.tokens.append(0)
        self.padded.append(0)

    def end(self) -> None:
        self.ends.append(_now())
        if self._profiler:
            self._profiler.__exit__(None, None, None)
            self.kernels = kernels_of(self._profiler)

    def figures(self) -> dict[str, Any]:
        """Means of what comes after the warm-up, the profiled last step left out."""
        first = self.options.warm_up
        last = self.steps - (1 if self.options.profile else 0)
        seconds = [b - a for a, b in zip(self.ends, self.ends[1:], strict=False)]
        rate = sum(self.tokens[first:last]) / sum(seconds[first:last])
        return {
            "tokens_per_second": round(rate, 1),
            "step_seconds_median": round(median(seconds[first:last]), 4),
            "padding_share": round(1 - sum(self.tokens) / sum(self.padded), 4),
            "first_step_seconds": round(seconds[0], 2),
            "warm_up_steps": first,
            "steps_timed": last - first,
            "step_seconds": [round(s, 4) for s in seconds],
            "tokens": self.tokens,
            "losses": [line["loss"] for line in self.logged],
            "grad_norms": [line["grad_norm"] for line in self.logged],
        }


def wait_for(gate: Path) -> None:
    """Say that the warm-up is over, and wait to be let in."""
    Path(f"{gate}.ready").touch()
    while not gate.exists():
        sleep(0.02)


def keep(meter: Meter) -> None:
    """Figures into the file, and in brief on standard output."""
    options = meter.options
    skipped = ("out", "gate", "base", "rows")
    given = {key: value for key, value in vars(options).items() if key not in skipped}
    figures, held = meter.figures(), memory()
    found = {
        "settings": given,
        **figures,
        "mfu": _mfu(options, held["device"], figures["tokens_per_second"]),
        **held,
        "process_seconds": round(perf_counter() - STARTED, 1),
        "versions": versions(),
    }
    if meter.kernels:
        found["profiled_last_step"] = meter.kernels
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    brief = {key: found[key] for key in list(found)[1:5]}
    losses = found["losses"]
    told = f"{json.dumps(brief)} loss {losses[0]:.4f} -> {losses[-1]:.4f}"
    print("RESULT", options.kind, told, flush=True)


def _mfu(options: argparse.Namespace, device: str, rate: float) -> float | None:
    """A share of 1, as `pipe train` counts it; None for a device whose peak is not known."""
    from pipeline.train.meter import flops_per_token, peak_flops

    config = json.loads((options.base / "config.json").read_text(encoding="utf-8"))
    flops = flops_per_token(config, "full" if options.method == "full" else "frozen")
    peak = peak_flops(device, "bf16")
    return None if peak is None else round(rate * flops / peak, 4)


def memory() -> dict[str, Any]:
    """The most that the process held, in bytes, by the kernel and by torch; the device's name."""
    import torch

    peak: dict[str, Any] = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if torch.cuda.is_available():
        peak["gpu_allocated"] = torch.cuda.max_memory_allocated()
        peak["gpu_reserved"] = torch.cuda.max_memory_reserved()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"peak_memory_bytes": peak, "device": name}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def kernels_of(profiler: Any) -> dict[str, Any]:
    """Seconds and launches of a step's kernels, the longest first."""
    import torch

    where = "CUDA" if torch.cuda.is_available() else "CPU"
    found: dict[str, list[float]] = {}
    for event in profiler.events():
        if event.device_type.name == where:
            sums = found.setdefault(event.name[:120], [0.0, 0])
            sums[0] += event.time_range.elapsed_us() / 1e6
            sums[1] += 1
    ordered = sorted(found.items(), key=lambda item: -item[1][0])
    return {
        "seconds": round(sum(sums[0] for sums in found.values()), 4),
        "launches": int(sum(sums[1] for sums in found.values())),
        "longest": [[name, round(sums[0], 5), int(sums[1])] for name, sums in ordered[:25]],
    }


def _callback(meter: Meter) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            meter.start()

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            meter.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.end()

        def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
            if logs and "loss" in logs:
                line = {key: float(logs[key]) for key in ("loss", "grad_norm")}
                meter.logged.append(line)
            if meter.options.gate and len(meter.logged) == meter.options.steps:
                keep(meter)
                os._exit(0)  # the card is the next one's

    return Watch()


def _profiler() -> Any:
    import torch
    from torch.profiler import ProfilerActivity, profile

    on_gpu = torch.cuda.is_available()
    return profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU])


def _now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()
