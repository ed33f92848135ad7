"""What some figures are drawn from: a finished run's adapter, and a matrix of its base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base import base_at
from pipeline.gguf.weights.checkpoint import Checkpoint
from pipeline.study.explain import numbers as by_hand
from pipeline.study.explain import superblock
from pipeline.study.explain.numbers import F32

ROOT = Path(__file__).parents[1]
MATRIX = "model.layers.0.self_attn.q_proj"
SHARES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")


def measured(run: Path) -> dict[str, Any]:
    """The singular values of a run's change, and each format's error on a matrix of its base."""
    base = Checkpoint(base_at(ROOT / "data" / "tiny-llama").shards())
    weights = base.read(f"{MATRIX}.weight").float32()
    return {
        "run": run.name,
        "matrix": {"tensor": f"{MATRIX}.weight", **_formats(weights)},
        "spectrum": {
            "tensor": f"{MATRIX}.weight",
            "weights": _rounded(_singular(weights)),
            "change": _rounded(_singular(_change(run, MATRIX))),
            "shares": {name.split(".")[1]: _shares(run, name) for name in SHARES},
        },
    }


def _change(run: Path, module: str) -> F32:
    """(alpha / r) B A of one projection [rows, columns], from PEFT's two tensors."""
    folder = run / "train" / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    saved = Checkpoint([folder / "adapter_model.safetensors"])
    a, b = (saved.read(f"base_model.model.{module}.lora_{each}.weight").float32() for each in "AB")
    return np.asarray(config["lora_alpha"] / config["r"] * (b @ a), np.float32)


def _singular(matrix: F32) -> F32:
    return np.linalg.svd(matrix.astype(np.float64), compute_uv=False).astype(np.float32)


def _shares(run: Path, name: str) -> list[float]:
    """Per cent of the change's squared size that its first 1, 2, ... 32 directions hold."""
    squares = _singular(_change(run, f"model.layers.0.{name}")).astype(np.float64) ** 2
    return [round(100 * float(each), 3) for each in np.cumsum(squares)[:32] / squares.sum()]


def _rounded(values: F32) -> list[float]:
    """Without the zeros of fp32 beyond the rank."""
    return [float(f"{value:.5g}") for value in values if value > 1e-5 * values[0]]


def _formats(weights: F32) -> dict[str, Any]:
    methods = [
        {
            "method": name,
            "label": label,
            "bits": made.bits,
            "relative_error": _error(weights, made.restored),
        }
        for name, label in (
            ("int8-absmax", "int8"),
            ("nf4", "NF4"),
            ("nf4-double", "NF4, double quantization"),
            ("fp4", "FP4"),
        )
        for made in [by_hand.METHODS[name](weights)]
    ]
    types = [
        {
            "type": type,
            "bits": superblock.bits(type),
            "relative_error": _in_type(type, weights),
            "reason": None,
        }
        for type in superblock.TYPES
    ]
    return {"methods": methods, "gguf": types}


def _in_type(type: str, weights: F32) -> float:
    return _error(weights, np.stack([superblock.in_type(type, row) for row in weights]))


def _error(weights: F32, restored: F32) -> float:
    return float(f"{by_hand.relative_error(weights, restored):.6g}")
