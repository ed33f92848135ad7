"""Which model of the catalogue for a use and a card: what fits, by which method, and why."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipeError
from pipeline.recipe.training import Lora
from pipeline.study.plan.catalogue import Known, Use, catalogue
from pipeline.study.plan.fit import Changes, verdict
from pipeline.study.plan.memory import Method, Setting, memory_of

_TRIED: tuple[Method, ...] = ("lora", "qlora")
"""16 bits where there is room: faster, and the base is learned on as it is served."""


@dataclass(frozen=True)
class Choice:
    """One model on one card."""

    known: Known
    fits: bool
    method: Method
    changes: Changes
    """Recipe keys that must be other than usual for this use, for it to fit."""
    total: int
    """Bytes, with the changes; the least that it needs where it does not fit."""
    why: str

    def as_json(self) -> dict[str, Any]:
        return {
            "base": self.known.base,
            "licence": self.known.licence,
            "context": self.known.context,
            "parameters": self.known.shape.parameters,
            "format": self.known.format,
            "fits": self.fits,
            "method": self.method,
            "changes": dict(self.changes),
            "memory_bytes": self.total,
            "why": self.why,
        }


def choices(use: str, gigabytes: float) -> list[Choice]:
    """Every model of the catalogue, the best for the use first, what does not fit last.

    Raises PipeError for a use that nobody described.
    """
    known = catalogue()
    if use not in known.uses:
        raise PipeError(f"There is no use {use}.", f"There are: {', '.join(known.uses)}.")
    asked = known.uses[use]
    found = [_choice(model, asked, gigabytes) for model in known.models]
    return sorted(found, key=lambda choice: _rank(choice, asked))


def usual(use: Use, method: Method) -> Setting:
    """How a model is usually trained for a use, on a GPU."""
    return Setting(
        method=method,
        device="cuda",
        precision="bf16",
        batch_size=use.batch_size,
        max_seq_length=use.max_seq_length,
        gradient_checkpointing=True,
        optimizer="adamw_8bit",
        lora=Lora(r=use.rank, alpha=2 * use.rank),
    )


def _choice(known: Known, use: Use, gigabytes: float) -> Choice:
    """By the better method that fits as it is; else by qlora with the fewest changes."""
    shape = known.shape
    for method in _TRIED:
        total = memory_of(shape, usual(use, method)).total
        if total <= gigabytes * 2**30:
            return Choice(known, True, method, {}, total, "; ".join(_reasons(known, use)))
    found = verdict(shape, usual(use, "qlora"), gigabytes, accumulation=16 // use.batch_size)
    reasons = list(_reasons(known, use))
    if not found.fits:
        reasons = [f"needs {found.total / 2**30:.1f} GB at least", *reasons]
    return Choice(known, found.fits, "qlora", found.changes, found.total, "; ".join(reasons))


def _reasons(known: Known, use: Use) -> Iterator[str]:
    """What speaks for a model or against it."""
    parameters, family = known.shape.parameters, known.shape.architecture.family.gguf_name
    if parameters < use.min_parameters:
        yield f"small for {use.name}"
    if "Coder" in known.base:
        yield "reads code; else plain Qwen2" if use.name == "code" else "made for code"
    elif family == "qwen3" and use.name == "reasoning":
        yield "thinks already, without tuning"
    if "not for commercial" in known.licence:
        yield "research licence"
    if known.context < use.max_seq_length:
        yield f"context of {known.context:,} tokens"


def _rank(choice: Choice, use: Use) -> tuple[bool, bool, bool, int, int]:
    """Fits; large enough; free to use; with no change; then the family and the size."""
    model = choice.known
    family = model.shape.architecture.family.gguf_name
    place = use.prefer.index(family) if family in use.prefer else len(use.prefer)
    if family == "qwen2" and use.name != "code":
        place = len(use.prefer)
    size = model.shape.parameters
    small = size < use.min_parameters
    return (
        not choice.fits,
        small,
        bool(choice.changes),
        place,
        size if use.min_parameters == 0 else -size,
    )
