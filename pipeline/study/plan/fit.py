"""Whether a training fits into a memory, and the fewest changes that make it fit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from pipeline.study.plan.memory import Method, Setting, memory_of
from pipeline.study.plan.shapes import Shape

CARDS = (8, 12, 16, 24, 48, 80)
"""GB of the cards that people have; a card's GB are 2**30 bytes."""
SHORTEST = 512
"""Tokens below which no shorter row is proposed."""

Changes = Mapping[str, Any]
"""Recipe keys and their values."""


@dataclass(frozen=True)
class Verdict:
    """One training in one memory."""

    gigabytes: float
    fits: bool
    """With `changes`, where there are some."""
    changes: Changes
    total: int
    """Bytes needed, with the changes."""

    def as_json(self) -> dict[str, Any]:
        return {
            "gigabytes": self.gigabytes,
            "fits": self.fits,
            "changes": dict(self.changes),
            "total_bytes": self.total,
        }


def verdict(
    shape: Shape,
    setting: Setting,
    gigabytes: float,
    *,
    accumulation: int = 1,
    other_method: bool = True,
) -> Verdict:
    """Whether it fits into so many GB, as it is or with the fewest changes.

    Shorter rows come last, as they drop what is longer. A smaller micro-batch keeps a step's rows
    by `accumulation`; `other_method` allows qlora instead. Where nothing helps, `total` is the
    least that any change leads to.
    """
    room, least = gigabytes * 2**30, memory_of(shape, setting).total
    for keys, changed in _tried(setting, accumulation, other_method):
        need = memory_of(shape, changed).total
        if need <= room:
            return Verdict(gigabytes, True, keys, need)
        least = min(least, need)
    return Verdict(gigabytes, False, {}, least)


def _tried(
    setting: Setting, accumulation: int, other_method: bool
) -> Iterator[tuple[Changes, Setting]]:
    """Every set of changes, the fewest first; of as many, those that cost least first."""
    for length in _lengths(setting.max_seq_length):
        shorter = {} if length == setting.max_seq_length else {"model.max_seq_length": length}
        at_hand = _changes(setting, accumulation, other_method)
        for count in range(len(at_hand) + 1):
            for chosen in combinations(at_hand, count):
                changed = replace(setting, max_seq_length=length)
                keys: dict[str, Any] = {}
                for values, fields in chosen:
                    changed = replace(changed, **fields)
                    keys |= values
                yield keys | shorter, changed


def _changes(
    setting: Setting, accumulation: int, other_method: bool
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What else than the length can be changed: recipe keys, and fields of Setting."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    if not setting.gradient_checkpointing:
        found.append(({"train.gradient_checkpointing": True}, {"gradient_checkpointing": True}))
    if setting.batch_size > 1:
        rows = setting.batch_size * accumulation
        keys = {"train.batch_size": 1, "train.gradient_accumulation": rows}
        found.append((keys, {"batch_size": 1}))
    if setting.device == "cuda" and "8bit" not in setting.optimizer:
        found.append(({"train.optimizer": "adamw_8bit"}, {"optimizer": "adamw_8bit"}))
    if other_method and setting.method != "qlora":
        found.append(({"train.method": "qlora"}, {"method": "qlora"}))
    return found


def _lengths(longest: int) -> Iterator[int]:
    """The length as it is, then halved as often as something is left."""
    yield longest
    while longest // 2 >= SHORTEST:
        longest //= 2
        yield longest


def methods_of(device: str) -> tuple[Method, ...]:
    """What a device trains, the most memory first; Unsloth opens no 8-bit base on a CPU."""
    return ("full", "lora", "lora-8bit", "qlora") if device == "cuda" else ("full", "lora", "qlora")
