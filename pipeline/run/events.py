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


@dataclass(frozen=True)
class Measured:
    """The numbers of one step by the metric's name, as metrics.jsonl and speed.jsonl have them."""

    task: str
    step: int
    steps: int
    values: Mapping[str, float]


Event = Progress | Note | Measured
Emit = Callable[[Event], None]


def silent(_: Event) -> None:
    """An Emit that drops everything."""
