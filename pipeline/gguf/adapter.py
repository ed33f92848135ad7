"""A PEFT LoRA adapter, and what it adds to each weight of the base."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import PipeError
from pipeline.gguf.checkpoint import F32, Checkpoint

_PREFIX = "base_model.model."
_REFUSED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules_to_save",
    "trainable_token_indices": "trained tokens",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
    "lora_bias": "LoRA biases",
}


@dataclass(frozen=True)
class Delta:
    """scale * B @ A, with A of shape [r, in] and B of shape [out, r], both fp32."""

    a: F32
    b: F32
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[0], self.a.shape[1]

    def added_to(self, weight: F32) -> F32:
        """weight + scale * B @ A in fp32."""
        return weight + np.float32(self.scale) * (self.b @ self.a)


def load_adapter(folder: Path) -> dict[str, Delta]:
    """Base tensor name -> what is added to it.

    Raises PipeError for a folder that is no LoRA adapter, for PEFT features that this merge does
    not do, and for an adapter that changes nothing.
    """
    config = _config(folder)
    weights = Checkpoint(_adapter_files(folder))
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    deltas: dict[str, Delta] = {}
    for name in weights:
        stem, found, _ = name.partition(".lora_A.weight")
        if found:
            a = weights.read(name).float32()
            b = weights.read(f"{stem}.lora_B.weight").float32()
            if a.shape[0] != b.shape[1]:
                raise PipeError(f"{folder}: {stem} has A {a.shape} and B {b.shape}.")
            deltas[f"{stem.removeprefix(_PREFIX)}.weight"] = Delta(a, b, scale)
    _check_nothing_left(folder, weights, len(deltas))
    if not any(delta.b.any() and delta.a.any() for delta in deltas.values()):
        raise PipeError(f"The adapter {folder} changes nothing.", "Train it: pipe train --force")
    return deltas


def check_fit(deltas: dict[str, Delta], base: Checkpoint) -> None:
    """Raises PipeError naming the first tensor that the adapter and the base do not share."""
    for name, delta in deltas.items():
        if name not in base:
            raise PipeError(
                f"The adapter changes {name}, which the base lacks.",
                "Name the base it was trained on.",
            )
        if base.shape(name) != delta.shape:
            raise PipeError(
                f"The adapter does not fit the base: {name} is {list(base.shape(name))} there and "
                f"{list(delta.shape)} in the adapter.",
                "Name the base that it was trained on.",
            )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PipeError(
            f"{folder} is no PEFT adapter: {error}.",
            "It holds adapter_config.json and safetensors.",
        ) from None
    if config.get("peft_type") != "LORA":
        raise PipeError(f"{folder} is a {config.get('peft_type')} adapter; only LoRA is merged.")
    for key, name in _REFUSED.items():
        if config.get(key):
            raise PipeError(f"The adapter {folder} uses {name}, which export cannot merge yet.")
    if config.get("bias", "none") != "none":
        raise PipeError(f"The adapter {folder} trains biases, which export cannot merge yet.")
    # these start from a changed base: added to the original one they would be wrong
    if config.get("init_lora_weights", True) not in (True, False, "gaussian", "orthogonal"):
        raise PipeError(
            f"The adapter {folder} was initialised by {config['init_lora_weights']}, which changes "
            "the base: it cannot be merged into the original."
        )
    return dict(config)


def _adapter_files(folder: Path) -> list[Path]:
    path = folder / "adapter_model.safetensors"
    if not path.exists():
        raise PipeError(f"{folder} holds no adapter_model.safetensors.", "Train it: pipe train")
    return [path]


def _check_nothing_left(folder: Path, names: Iterable[str], merged: int) -> None:
    total = len(list(names))
    if not merged or total != 2 * merged:
        raise PipeError(
            f"{folder} holds {total} tensors, of which {2 * merged} are LoRA pairs.",
            "Only plain LoRA on linear layers is merged.",
        )
