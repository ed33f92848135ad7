"""Partners for `pipe chat`: a conversation in, the reply in pieces, thinking told from answer."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, Protocol

from pipeline.chat import Message, Part, Reply
from pipeline.errors import PipeError


@dataclass(frozen=True)
class Manner:
    """How a reply is to be given; None leaves it to the partner."""

    temperature: float | None = None
    """0 is greedy."""
    seed: int = 0
    max_new_tokens: int | None = None
    """None is as many as the context holds."""
    thinking: bool = True


@dataclass(frozen=True)
class Piece:
    """Text of a reply. Joined, the pieces of a part are that part without its outer whitespace."""

    part: Part
    text: str
    tokens: int
    """Generated so far; of a served model the pieces so far, which are mostly single tokens."""


@dataclass(frozen=True)
class Remark:
    """What was not done as asked; `kind` is alike for remarks that need be made once only."""

    kind: Literal["left out", "control tokens", "thinking", "shifted", "repeats", "tags"]
    text: str


@dataclass(frozen=True)
class Ending:
    """How a reply ended and what it took."""

    reason: Literal["stop", "length", "interrupted"]
    """`stop`: by itself; `length`: cut off by the limit or by the end of the context."""
    tokens: int
    """Generated, the end of turn included."""
    prompt_tokens: int
    """0 where the partner did not come to say it."""
    seconds: float
    """From being asked to the end."""
    first_token_s: float | None
    """None where nothing came."""
    tokens_per_s: float | None
    """After the first token; None for less than two."""
    reply: Reply | None = None
    """The whole as `parse_reply` reads it, where its pieces were taken for something else."""


Event = Piece | Remark | Ending
Events = Generator[Event, None, None]


class Partner(Protocol):
    """Someone to talk to."""

    name: str
    n_ctx: int | None
    """Tokens that hold prompt and reply together, where known."""

    def stream(self, conversation: Sequence[Message], manner: Manner) -> Events:
        """One reply, its Ending last. Closing the iterator ends the reply.

        Exchanges that do not fit the context are left out, the oldest first, with a Remark.
        Raises PipeError; a later call may succeed again.
        """

    def stop(self) -> bool:
        """Ask the reply under way to end soon, from any thread; False where only closing ends it.

        It then ends as any other, with the reason `interrupted`.
        """

    def close(self) -> None: ...


class Clock:
    """Times of one reply."""

    def __init__(self) -> None:
        self._began = perf_counter()
        self._first: float | None = None

    def tick(self) -> None:
        """A token has come."""
        if self._first is None:
            self._first = perf_counter() - self._began

    def ending(
        self,
        reason: Literal["stop", "length", "interrupted"],
        tokens: int,
        prompt_tokens: int,
        tokens_per_s: float | None = None,
    ) -> Ending:
        """`tokens_per_s` where the partner knows better than its reader."""
        seconds = perf_counter() - self._began
        after_first = seconds - (self._first or seconds)
        if tokens_per_s is None and tokens > 1 and after_first > 0:
            tokens_per_s = (tokens - 1) / after_first
        return Ending(reason, tokens, prompt_tokens, seconds, self._first, tokens_per_s)


class Trim:
    """Takes the outer whitespace off each part of a reply as it streams."""

    def __init__(self) -> None:
        self._part: Part | None = None
        self._held = ""
        self._begun: set[Part] = set()

    def feed(self, part: Part, text: str) -> str:
        """What of the text is now certain to stand inside its part."""
        if part != self._part:
            self._part, self._held = part, ""
        text = self._held + text
        if part not in self._begun:
            text = text.lstrip()
        inside = text.rstrip()
        self._held = text[len(inside) :]
        if inside:
            self._begun.add(part)
        return inside


def fitted(
    conversation: Sequence[Message], count: Callable[[Sequence[Message]], int], room: int
) -> tuple[list[Message], int]:
    """The conversation without its oldest exchanges, so that `count` is at most `room`; how many
    messages were left out.

    The system message and the last question always stay. Raises PipeError where these alone are
    too long.
    """
    kept, left_out = list(conversation), 0
    while (tokens := count(kept)) > room:
        shorter = without_oldest(kept)
        if len(shorter) == len(kept):
            raise PipeError(
                f"The question takes {tokens:,} tokens; {room:,} are there for it.",
                "Ask more briefly, or give the model more context: --set serve.num_ctx=N",
            )
        left_out += len(kept) - len(shorter)
        kept = shorter
    return kept, left_out


def without_oldest(conversation: Sequence[Message]) -> list[Message]:
    """The conversation without its first question and what was said to it; as it is if there is
    one question only."""
    first = 1 if conversation and conversation[0]["role"] == "system" else 0
    later = range(first + 1, len(conversation))
    following = next((place for place in later if conversation[place]["role"] == "user"), None)
    if following is None:
        return list(conversation)
    return [*conversation[:first], *conversation[following:]]


def left_out_remark(messages: int) -> Remark:
    exchanges = (messages + 1) // 2
    plural = "exchange is" if exchanges == 1 else f"{exchanges} exchanges are"
    return Remark(
        "left out",
        f"The context is full: the oldest {plural} left out of what the model sees, "
        "and more as the conversation grows.",
    )


def neutral_remark() -> Remark:
    return Remark(
        "control tokens",
        "The text names control tokens, such as <|eot_id|>; they were sent with a space in them, "
        "so that they stay text.",
    )


def tags_remark() -> Remark:
    return Remark(
        "tags",
        "The reply's thinking tags are out of order: its answer is what stands after the last one "
        "that closes.",
    )
