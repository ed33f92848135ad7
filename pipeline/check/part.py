"""A run as a part of what is checked, and what makes the files that it is held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pipeline.base import Base
from pipeline.chat import Encoder
from pipeline.engines.trained import Trained
from pipeline.recipe import Recipe
from pipeline.run import Emit, Run


class MakeFiles(Protocol):
    """Exports the run's base, or what became of it (`tuned`), by its recipe: type -> new file."""

    def __call__(
        self, folder: Path, types: Sequence[str], *, tuned: bool
    ) -> Mapping[str, Path]: ...


@dataclass(frozen=True)
class RunPart:
    """A run, and what makes the files that it is held against."""

    recipe: Recipe
    run: Run
    trained: Trained
    encoder: Encoder
    make: MakeFiles
    rows: Sequence[Mapping[str, Any]]
    """Held-out rows with a reply of their own."""
    emit: Emit

    @property
    def base(self) -> Base:
        """The base that was trained on."""
        return self.trained.base

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that train saved with its weights, as Transformers loads it."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.trained.tokenizer)
