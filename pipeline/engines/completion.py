"""What every engine gives back, and the one interface they share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.chat import Conversation, Reply


@dataclass(frozen=True)
class Completion:
    """One greedy reply."""

    text: str
    """The reply as it came, without its end of turn."""
    reply: Reply
    tokens: int
    """Generated tokens, the end of turn included."""
    stopped: bool
    """True when the model ended its turn, False when the limit cut it."""
    gaps: tuple[float, ...] = ()
    """Per token, the logit of the first choice minus that of the second, where known."""


class Engine(Protocol):
    """Something that answers conversations, greedily, in order."""

    name: str

    def answers(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, thinking: bool = True
    ) -> Iterator[Completion]: ...

    def close(self) -> None: ...
