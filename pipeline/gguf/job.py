"""What one export is asked to do, in or outside a run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.base import Base
from pipeline.chat import ChatFormat
from pipeline.gguf.importance import Text
from pipeline.recipe.schema import Export


@dataclass(frozen=True)
class Job:
    name: str
    base: Base
    adapter: Path | None
    """None exports the base itself, which may be a tuned checkpoint."""
    format: ChatFormat | None
    """None keeps the base's own chat template, control tokens and sampling."""
    asked: Export
    license: str
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Defaults by llama.cpp's names, such as `temp`."""
    datasets: Sequence[str] = ()
    """Hub ids of what it was trained on."""
    training_text: Callable[[int], Iterable[Text]] | None = None
    """Training rows of at least so many tokens, for an importance matrix."""
