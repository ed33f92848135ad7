"""What a PEFT adapter_config.json asks for, or why it is refused."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipeError

MERGE_IN_PEFT = (
    "Merge it with PEFT (merge_and_unload, then save_pretrained) and export the merged checkpoint."
)
_READ = {
    "r", "lora_alpha", "use_rslora", "use_dora", "lora_bias", "bias", "rank_pattern",
    "alpha_pattern", "modules_to_save", "trainable_token_indices", "ensure_weight_tying",
    "init_lora_weights", "peft_type",
}  # fmt: skip
_WITHOUT_EFFECT = {
    # where it came from and how it was trained; which modules have an adapter is in the tensors
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "target_modules", "exclude_modules", "layers_to_transform",
    "layers_pattern", "lora_dropout", "runtime_config",
    # read by PEFT only along with another key, which is refused or an initialisation
    "megatron_core", "qalora_group_size", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config",
}  # fmt: skip
_PLAIN_INITS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
_RESIDUAL_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""They take scale * B @ A out of the base before training (LoraLayer.*_init)."""


@dataclass(frozen=True)
class PeftConfig:
    """The keys of a LoraConfig that a merge needs, checked."""

    folder: Path
    rank: int
    alpha: float
    rslora: bool
    dora: bool
    lora_bias: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    modules_to_save: tuple[str, ...]
    tokens: list[int] | Mapping[str, list[int]] | None
    residual: str | None
    """pissa, olora, corda, loftq or lora_ga where the base was changed before training."""

    def rank_of(self, module: str) -> int:
        return int(_matched(self.rank_pattern, module, self.rank))

    def alpha_of(self, module: str) -> float:
        return _matched(self.alpha_pattern, module, self.alpha)

    def scale_of(self, module: str) -> float:
        """alpha / rank, or alpha / sqrt(rank) with rsLoRA (LoraLayer.update_layer)."""
        rank = self.rank_of(module)
        return self.alpha_of(module) / (math.sqrt(rank) if self.rslora else rank)

    def saves(self, module: str) -> bool:
        """Whether modules_to_save names the module, by PEFT's rule (_set_trainable)."""
        return module.endswith(self.modules_to_save)

    def tokens_of(self, module: str) -> list[int] | None:
        """The trained token ids of an embedding; a plain list is the input embedding's."""
        if not isinstance(self.tokens, Mapping):
            return self.tokens if module.endswith("embed_tokens") else None
        return next((ids for name, ids in self.tokens.items() if module.endswith(name)), None)


def read_config(folder: Path) -> PeftConfig:
    """Raises PipeError for a folder that is no LoRA adapter, and naming what cannot be merged."""
    config = _json(folder)
    if config.get("peft_type") != "LORA":
        raise PipeError(
            f"{folder} is a {config.get('peft_type')} adapter; only LoRA is merged.", MERGE_IN_PEFT
        )
    for key, value in config.items():
        if value and key not in _READ | _WITHOUT_EFFECT:
            raise PipeError(
                f"The adapter {folder} uses {key}, which export does not merge.", MERGE_IN_PEFT
            )
    try:
        return _checked(folder, config)
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise PipeError(
            f"{folder / 'adapter_config.json'} cannot be used: {error}.", "Save the adapter again."
        ) from None


def _json(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    inside = sorted(child.parent.name for child in folder.glob("*/adapter_config.json"))
    if not path.exists() and inside:
        raise PipeError(
            f"{folder} holds several adapters' folders and none itself.",
            f"Name one of them: {', '.join(inside)}.",
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("adapter_config.json is no object")
    except (OSError, ValueError, RecursionError) as error:
        raise PipeError(
            f"{folder} is no PEFT adapter: {error}.",
            "It holds adapter_config.json and adapter_model.safetensors.",
        ) from None
    return config


def _checked(folder: Path, config: Mapping[str, Any]) -> PeftConfig:
    rank_pattern = dict(config.get("rank_pattern") or {})
    alpha_pattern = dict(config.get("alpha_pattern") or {})
    for pattern in (*rank_pattern, *alpha_pattern):
        re.compile(pattern)
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    if not all(type(value) is int and value > 0 for value in (rank, *rank_pattern.values())):
        raise ValueError("a rank is no positive whole number")
    if not all(_is_number(value) for value in (alpha, *alpha_pattern.values())):
        raise ValueError("an alpha is no number")
    return PeftConfig(
        folder,
        rank,
        alpha,
        rslora=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
        lora_bias=bool(config.get("lora_bias")),
        rank_pattern=rank_pattern,
        alpha_pattern=alpha_pattern,
        modules_to_save=_names(config.get("modules_to_save")),
        tokens=_tokens(config.get("trainable_token_indices")),
        residual=_residual(folder, config.get("init_lora_weights", True)),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def _names(value: Any) -> tuple[str, ...]:
    if value is not None and not (
        isinstance(value, list) and all(isinstance(name, str) and name for name in value)
    ):
        raise ValueError("modules_to_save is no list of names")
    return tuple(value or ())


def _tokens(value: Any) -> list[int] | dict[str, list[int]] | None:
    if not value:
        return None
    for ids in value.values() if isinstance(value, dict) else [value]:
        if not isinstance(ids, list) or not all(type(id) is int and id >= 0 for id in ids):
            raise ValueError("trainable_token_indices holds no token ids")
        if len(set(ids)) != len(ids):
            raise ValueError("trainable_token_indices names a token twice")
    known: list[int] | dict[str, list[int]] = value
    return known


def _residual(folder: Path, init: Any) -> str | None:
    if init in _PLAIN_INITS:
        return None
    for name in _RESIDUAL_INITS:
        if isinstance(init, str) and init.lower().startswith(name):
            return name
    raise PipeError(
        f"The adapter {folder} was initialised by {init}, which export does not know.",
        MERGE_IN_PEFT,
    )


def _matched(pattern: Mapping[str, float], module: str, default: float) -> float:
    """The value of the first key that matches the module's name or its end (get_pattern_key)."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default
