"""How fast a training runs for its device: tokens a second, MFU and memory."""

import re
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Literal

Trained = Literal["full", "frozen"]
"""Every weight, or an adapter on a frozen base."""

_PEAKS: tuple[tuple[str, float, float | None], ...] = (
    (r"B200\b", 2250.0, 2250.0),
    (r"GH200\b", 989.4, 989.4),
    (r"H200 NVL", 835.5, 835.5),
    (r"H200\b", 989.4, 989.4),
    (r"H100 NVL", 835.5, 835.5),
    (r"H100 PCIe", 756.5, 756.5),
    (r"H100\b", 989.4, 989.4),
    (r"A100\b", 312.0, 312.0),
    (r"A30\b", 165.0, 165.0),
    (r"A40\b", 149.7, 149.7),
    (r"A10G\b", 70.0, 70.0),
    (r"A10\b", 125.0, 125.0),
    (r"L40S\b", 362.05, 362.05),
    (r"L40\b", 181.05, 181.05),
    (r"L4\b", 121.0, 121.0),
    (r"Tesla T4\b", 65.0, None),
    (r"V100S", 130.0, None),
    (r"V100-PCIE", 112.0, None),
    (r"V100\b", 125.0, None),
    (r"RTX 6000 Ada", 364.25, 364.25),
    (r"RTX A6000\b", 154.8, 154.8),
    (r"RTX 5090$", 209.5, 209.5),
    (r"RTX 4090$", 165.2, 165.2),
    (r"RTX 3090 Ti$", 80.0, 80.0),
    (r"RTX 3090$", 71.0, 71.0),
    (r"MI300X\b", 1307.4, 1307.4),
)
"""A pattern of the device's name, and dense TFLOP/s in fp16 and in bf16; the first match counts."""


def matrix_weights(config: Mapping[str, Any]) -> int:
    """Weights that each token is multiplied with, in a Llama or Qwen model of this config.json.

    All projections of all layers, and the output head, whose table is the embeddings' own where
    they are tied. An embedding table of its own is looked up and does not count; norms and
    biases, under a thousandth of the rest, do not either.
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    groups = config.get("num_key_value_heads") or heads
    attention = 2 * hidden * head * (heads + groups)  # queries and output, keys and values
    mlp = 3 * hidden * config["intermediate_size"]
    return int(layers * (attention + mlp) + config["vocab_size"] * hidden)


def flops_per_token(config: Mapping[str, Any], trained: Trained) -> float:
    """FLOPs of the model for one trained token, with N of `matrix_weights`: 6N, frozen 4N.

    2N forward and 2N for the gradients of the activations; 2N more for those of the weights, where
    they learn (Kaplan et al. 2020, arXiv 2001.08361, section 2.1). Left out: the adapter's own
    products (its share of the weights, some 1%); the products of queries, keys and values, which
    depend on the length (12 times layers, heads, their size and half of it: 16% of 4N for Llama 3.2
    1B at 4,096 tokens, 5% for 8B at 2,048); and what gradient checkpointing computes again, which
    is no work of the model: MFU as PaLM has it (arXiv 2204.02311, appendix B).
    """
    return (6.0 if trained == "full" else 4.0) * matrix_weights(config)


def peak_flops(device_name: str, precision: str) -> float | None:
    """Dense FLOP/s of a GPU as torch names it, in `bf16` or `fp16`; None where it is not known.

    From the vendors' data sheets, without sparsity: NVIDIA's for its data centre and workstation
    cards; its GA102, AD102 and Blackwell whitepapers for GeForce, products summed in fp32; AMD's
    for the MI300X. None for a CPU, a slice of a GPU, a laptop's, and any other precision.
    """
    if precision not in ("bf16", "fp16") or " MIG " in device_name:
        return None
    for pattern, fp16, bf16 in _PEAKS:
        if re.search(rf"\b{pattern}", device_name):
            peak = bf16 if precision == "bf16" else fp16
            return None if peak is None else peak * 1e12
    return None


def memory_bytes() -> int:
    """The most that torch has held on the GPU; without one, what the process holds in RAM now."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)


class StepMeter:
    """Makes each step's line of speed.jsonl from its tokens and the clock.

    A step begins where the last one ended, or at `begin`, which leaves out what came between, such
    as an evaluation. On a GPU call `end` when the device is done: reading the loss waits for it.
    `flops` is for one token; `peak` is FLOP/s of all devices together, None if it is not known.
    """

    def __init__(
        self,
        flops: float,
        peak: float | None,
        *,
        clock: Callable[[], float] = perf_counter,
        memory: Callable[[], int] = memory_bytes,
    ) -> None:
        self._flops, self._peak = flops, peak
        self._clock, self._memory = clock, memory
        self._began = clock()

    def begin(self) -> None:
        """The next step begins now."""
        self._began = self._clock()

    def end(self, step: int, tokens: int) -> dict[str, Any]:
        """{"step", "seconds", "tokens_per_second", "mfu", "memory_bytes"} of the step that ends.

        `tokens` are those of the step on all devices, padding not counted; `mfu` is a share of 1,
        None without a peak.
        """
        now = self._clock()
        seconds = max(now - self._began, 1e-9)
        self._began = now
        rate = tokens / seconds
        return {
            "step": step,
            "seconds": round(seconds, 6),
            "tokens_per_second": round(rate, 1),
            "mfu": None if self._peak is None else round(rate * self._flops / self._peak, 4),
            "memory_bytes": self._memory(),
        }
