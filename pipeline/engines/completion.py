"""What engines take and give: conversations to replies, encoded texts to log-probabilities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from pipeline.chat import Conversation, Encoded, Reply


@dataclass(frozen=True)
class Decoding:
    """How a reply is drawn. At temperature 0 it is greedy, and `top_p` and `seed` mean nothing."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """One reply."""

    text: str
    """The reply as it came, without its end of turn."""
    reply: Reply
    tokens: int
    """Generated tokens, the end of turn included."""
    stopped: bool
    """True when the model ended its turn, False when the limit cut it."""
    gaps: tuple[float, ...] = ()
    """Per token of a greedy reply: the first choice's logit minus the second's, where known."""
    first_token_s: float | None = None
    """Seconds from being asked to the first token, where known; a batch shares one."""


class Engine(Protocol):
    """Something that answers conversations, in order.

    A conversation that ends with the assistant's words is gone on with (a prefill).
    """

    name: str

    def answers(
        self, conversations: Sequence[Conversation], decoding: Decoding, *, thinking: bool = True
    ) -> Iterator[Completion]: ...

    def memory_bytes(self) -> int | None:
        """What the model takes of memory now, on the GPU if it is there; None where not known."""

    def close(self) -> None: ...


class Scorer(Protocol):
    """An engine that says how likely it finds given texts."""

    def score(self, sequences: Sequence[Encoded], keep: Path | None = None) -> list[NDArray[Any]]:
        """For each sequence the natural log-probability of its supervised tokens, float32.

        Token t is scored by what stands before it, for t in [target_start, len(ids)). `keep` gets
        the whole distributions: float32 natural log-probabilities, [tokens of all sequences in
        order, vocabulary], raw and row by row.
        """
