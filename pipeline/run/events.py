"""What a stage says while it works. Stages emit; only the command line draws."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units of one task; total None when it is not known."""

    task: str
    done: float
    total: float | None
    unit: str
    figures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """A sentence the user should read; a warning when something was not done as asked."""

    text: str
    warning: bool = False


Emit = Callable[[Progress | Note], None]


def silent(_: Progress | Note) -> None:
    """An Emit that drops everything."""
