"""Times a Trainer's steps, counts its tokens, and writes both down."""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

STARTED = perf_counter()
PEAK_FLOPS = 989.4e12
"""H100 SXM, dense bf16, by NVIDIA's data sheet."""
WARM_UP = 5
"""Steps left out of the means."""


class Meter:
    """Times the steps of a Trainer and counts the tokens it is given."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.padded: list[int] = []
        self.options = options
        self.kernels: dict[str, Any] = {}
        self.trainer: Any = None
        self._profiler: Any = None

    def watch(self, trainer: Any) -> Any:
        """The same trainer, watched."""
        inner, self.trainer = trainer.training_step, trainer

        def training_step(model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
            mask = inputs.get("attention_mask")
            ids = inputs["input_ids"]
            self.tokens[-1] += int(mask.sum()) if mask is not None else ids.numel()
            self.padded[-1] += ids.numel()
            return inner(model, inputs, *rest, **named)

        trainer.training_step = training_step
        trainer.add_callback(_callback(self))
        return trainer

    def begin(self) -> None:
        if len(self.seconds) == WARM_UP and self.options.gate:
            wait_for(self.options.gate)
        if len(self.seconds) == self.options.steps - 1 and self.options.profile:
            self._profiler = _profiler()
            self._profiler.__enter__()
        self.tokens.append(0)
        self.padded.append(0)
        self._moment = _now()

    def end(self) -> None:
        self.seconds.append(_now() - self._moment)
        if self._profiler:
            self._profiler.__exit__(None, None, None)
            self.kernels = kernels_of(self._profiler)

    def figures(self, parameters: int) -> dict[str, Any]:
        """Means after the warm-up; MFU counts 4 FLOPs a weight and token: a frozen base."""
        first = WARM_UP if len(self.seconds) > WARM_UP + 1 else 0
        last = len(self.seconds) - (1 if self.options.profile else 0)
        seconds, tokens = sum(self.seconds[first:last]), sum(self.tokens[first:last])
        rate = tokens / seconds
        return {
            "tokens_per_second": round(rate, 1),
            "step_seconds_median": round(median(self.seconds[first:last]), 4),
            "mfu": round(rate * 4 * parameters / PEAK_FLOPS, 4),
            "padding_share": round(1 - sum(self.tokens) / sum(self.padded), 4),
            "first_step_seconds": round(self.seconds[0], 2),
            "steps_timed": last - first,
            "seconds": [round(s, 4) for s in self.seconds],
            "tokens": self.tokens,
            "padded_tokens": self.padded,
            "profiled_last_step": self.kernels,
        }


def wait_for(gate: Path) -> None:
    """Say that the warm-up is over, and wait to be let in."""
    Path(f"{gate}.ready").touch()
    while not gate.exists():
        sleep(0.02)


def _callback(meter: Meter) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            meter.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.end()

        def on_log(self, *_: Any, **__: Any) -> None:
            if meter.options.gate and len(meter.seconds) == meter.options.steps:
                keep(meter)
                os._exit(0)

    return Watch()


def _profiler() -> Any:
    import torch
    from torch.profiler import ProfilerActivity, profile

    on_gpu = torch.cuda.is_available()
    return profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU])


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


def _now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()


def memory() -> dict[str, Any]:
    """Bytes by torch; MiB by nvidia-smi, which counts every process on the card."""
    import torch

    if not torch.cuda.is_available():
        return {}
    shown = subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
        "nvidia_smi_mib": shown.stdout.strip(),
        "device": torch.cuda.get_device_name(),
    }


def parameters_of(base: Path) -> int:
    """Weights that a token is multiplied with: all, for tied ones serve as the output."""
    from safetensors import safe_open

    total = 0
    for path in base.glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                count = 1
                for size in file.get_slice(name).get_shape():
                    count *= size
                total += count
    return total


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("torch", "triton", "transformers", "trl", "peft", "bitsandbytes", "unsloth"):
        found[name] = importlib.metadata.version(name)
    return found


def keep(meter: Meter) -> None:
    """Figures into the file, and in brief on standard output."""
    options = meter.options
    history = meter.trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    skipped = ("out", "gate")
    given = {key: str(value) for key, value in vars(options).items() if key not in skipped}
    found = {
        "contender": options.kind,
        "settings": given,
        "figures": meter.figures(parameters_of(options.base)),
        "losses": losses,
        "memory": memory(),
        "whole_process_seconds": round(perf_counter() - STARTED, 1),
        "versions": versions(),
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    brief = {key: found["figures"][key] for key in list(found["figures"])[:6]}
    brief["peak_gb"] = round(found["memory"].get("allocated", 0) / 1e9, 2)
    told = json.dumps(brief)
    print("RESULT", options.kind, told, f"loss {losses[0]:.4f} -> {losses[-1]:.4f}", flush=True)
