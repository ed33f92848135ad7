"""What a run's training left: an adapter on its base, or a whole model in the base's place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.base import Base
from pipeline.engines.loading import Bits
from pipeline.recipe import Recipe
from pipeline.run import Run

FULL = "full"
TUNED = "adapter"
"""The engine that is the tuned model as it was trained, by whatever method."""
_BITS: Mapping[str, Bits] = {"qlora": 4, "lora-8bit": 8}
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""NVIDIA, WSL, AMD: a look that costs nothing, where torch takes seconds to be asked."""


@dataclass(frozen=True)
class Trained:
    """The method that really ran, and where its weights lie."""

    method: str
    """qlora, lora, lora-8bit or full."""
    base: Base
    """The one that was trained on."""
    folder: Path
    """Of the train stage."""
    asked: str
    """The recipe's device, "cuda" or "cpu"."""
    has_gpu: bool

    @property
    def is_full(self) -> bool:
        return self.method == FULL

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder; None where every weight was trained."""
        return None if self.is_full else self.folder / "adapter"

    @property
    def model(self) -> Base:
        """What `adapter` belongs on or, where there is none, the tuned model itself.

        It keeps the base's name and revision: those are what it comes from.
        """
        return replace(self.base, folder=self.folder / "model") if self.is_full else self.base

    @property
    def tokenizer(self) -> Path:
        """The folder with the tokenizer that training saved."""
        return self.adapter or self.model.folder

    @property
    def device(self) -> str:
        """Where Transformers computes: a run that was trained on a GPU may be looked at without."""
        return self.asked if self.has_gpu else "cpu"

    @property
    def bits(self) -> Bits:
        """Bits of the base's weights under the adapter, as trained; a CPU has all of them too."""
        return _BITS.get(self.method, 16)

    def differences(self) -> Iterator[str]:
        """How the models are opened otherwise than they were trained, in sentences."""
        if self.asked != self.device:
            yield (
                "No driver of a GPU is here: Transformers computes on the CPU in fp32, which takes "
                "longer and more memory."
            )


def trained(recipe: Recipe, run: Run, base: Base) -> Trained:
    """By what the train stage says that it did; by the recipe where it says nothing."""
    manifest = run.manifest("train")
    method = (manifest.facts if manifest else {}).get("method", recipe.train.method)
    return Trained(str(method), base, run.folder("train"), recipe.train.device, has_gpu())


def has_gpu() -> bool:
    """Whether the driver of a GPU is here."""
    return any(Path(path).exists() for path in _DRIVERS)


def shown(engine: str, method: str | None) -> str:
    """An engine's name for people: without an adapter, `adapter` would be the wrong word."""
    return "tuned (full)" if engine == TUNED and method == FULL else engine
