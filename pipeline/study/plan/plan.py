"""The plan of a recipe: memory by part and method, disk by stage, time, and what to change."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.recipe import Recipe
from pipeline.run import Run
from pipeline.study.plan.calibrate import Length, Speed, calibrate, last_speed, length_of
from pipeline.study.plan.disk import Item, disk_of, free_bytes
from pipeline.study.plan.fit import CARDS, Verdict, methods_of, verdict
from pipeline.study.plan.found import Found, found_base
from pipeline.study.plan.memory import Memory, Method, Setting, memory_of, nominal_bytes
from pipeline.workflow.work import Work

BITS = (32, 16, 8, 4)
SCHEMA = 1

_PARTS = (
    "weights", "adapter", "gradients", "optimizer", "activations", "logits", "allocator",
    "overhead", "step", "loading", "evaluating", "total",
)  # fmt: skip


@dataclass(frozen=True)
class Time:
    """What the training is, and how long it takes where a speed is known."""

    length: Length | None
    speed: Speed | None

    @property
    def seconds(self) -> float | None:
        if self.length is None or self.speed is None:
            return None
        return self.length.tokens / self.speed.tokens_per_second

    def as_json(self) -> dict[str, Any]:
        length, seconds = self.length, self.seconds
        return {
            "steps": length.steps if length else None,
            "tokens": length.tokens if length else None,
            "seconds": None if seconds is None else round(seconds, 1),
            "speed": self.speed.as_json() if self.speed else None,
        }


@dataclass(frozen=True)
class Plan:
    """What a recipe needs. Sizes are bytes."""

    recipe: str
    found: Found
    setting: Setting
    methods: Mapping[Method, Memory]
    verdicts: Mapping[Method, Sequence[Verdict]]
    """For each of CARDS and the size that was asked for."""
    longest: int
    """Tokens that the recipe allows a row; `setting` may know that none is so long."""
    context: int
    """Tokens that Ollama will hold."""
    disk: Sequence[Item]
    free: int
    time: Time

    @property
    def nominal(self) -> dict[int, int]:
        """All weights by the bits of each."""
        return {bits: nominal_bytes(self.found.shape.parameters, bits) for bits in BITS}

    @property
    def kv_cache(self) -> int:
        return self.found.shape.kv_cache_bytes(self.context)

    def as_json(self) -> dict[str, Any]:
        setting = self.setting
        return {
            "schema": SCHEMA,
            "recipe": self.recipe,
            "base": self.found.as_json(),
            "setting": {
                "method": setting.method,
                "device": setting.device,
                "precision": setting.precision,
                "batch_size": setting.batch_size,
                "max_seq_length": self.longest,
                "row_tokens": setting.max_seq_length,
                "gradient_checkpointing": setting.gradient_checkpointing,
                "optimizer": setting.optimizer,
                "rank": setting.lora.r,
            },
            "weights_bytes": {str(bits): size for bits, size in self.nominal.items()},
            "memory_bytes": {name: _parts(memory) for name, memory in self.methods.items()},
            "verdicts": {
                name: [each.as_json() for each in found] for name, found in self.verdicts.items()
            },
            "kv_cache": {"tokens": self.context, "bytes": self.kv_cache},
            "disk": [item.as_json() for item in self.disk],
            "disk_free_bytes": self.free,
            "time": self.time.as_json(),
        }


def plan(work: Work, *, gigabytes: float | None = None, measure: bool = False) -> Plan:
    """The plan of the work's recipe, fetching nothing.

    `gigabytes` adds a memory of one's own to CARDS; `measure` trains a few steps for the time.
    Raises PipeError where the base's shape is not known, and what training raises.
    """
    recipe, run = work.recipe, work.run
    found, setting = found_base(recipe.model), setting_of(recipe, run)
    sizes = sorted({*CARDS, *([gigabytes] if gigabytes else [])})
    methods = methods_of(setting.device)
    return Plan(
        recipe=recipe.name,
        found=found,
        setting=setting,
        methods={name: memory_of(found.shape, setting.by(name)) for name in methods},
        verdicts={name: _verdicts(found, setting, recipe, name, sizes) for name in methods},
        longest=recipe.model.max_seq_length,
        context=recipe.num_ctx,
        disk=disk_of(recipe, run, found),
        free=free_bytes(run.root),
        time=Time(length_of(recipe, run), calibrate(work) if measure else last_speed(recipe, run)),
    )


def setting_of(recipe: Recipe, run: Run) -> Setting:
    """The recipe's setting; with rows as long as the run's longest, where they are prepared."""
    setting, made = Setting.of(recipe), run.last("data")
    if (
        made is None
        or made.section.get("model", {}).get("max_seq_length") != setting.max_seq_length
    ):
        return setting
    stats = json.loads((run.folder("data") / "stats.json").read_text(encoding="utf-8"))
    longest = max((each["max"] for each in stats["tokens"].values() if each), default=0)
    packed = recipe.train.batching == "packed" and setting.device == "cuda"
    return setting if packed or not longest else replace(setting, max_seq_length=longest)


def _verdicts(
    found: Found, setting: Setting, recipe: Recipe, method: Method, sizes: Sequence[float]
) -> list[Verdict]:
    """Of one method; only the recipe's own may become another one."""
    return [
        verdict(
            found.shape,
            setting.by(method),
            size,
            accumulation=recipe.train.gradient_accumulation,
            other_method=method == setting.method,
        )
        for size in sizes
    ]


def _parts(memory: Memory) -> dict[str, int]:
    return {name: getattr(memory, name) for name in _PARTS}
