"""A partner that says what a test has it say."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.chat import Message
from pipeline.engines.talk import Ending, Event, Events, Manner, Piece
from pipeline.errors import PipeError

Step = Event | PipeError | Callable[[], None]


@dataclass
class Scripted:
    """Goes through its script for every question: an error is raised, a function called."""

    script: Sequence[Step] = ()
    name: str = "scripted"
    n_ctx: int | None = 100
    stoppable: bool = True
    asked: list[tuple[list[Message], Manner]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    """Set when a reply was closed or has ended."""

    def stream(self, conversation: Sequence[Message], manner: Manner) -> Events:
        self.asked.append((list(conversation), manner))
        self.stopped.clear()
        self.left.clear()
        try:
            for step in self.script:
                if self.stopped.is_set():
                    yield ending("interrupted")
                    return
                if isinstance(step, PipeError):
                    raise step
                if isinstance(step, Piece | Ending) or not callable(step):
                    yield step
                else:
                    step()
        finally:
            self.left.set()

    def stop(self) -> bool:
        self.stopped.set()
        return self.stoppable

    def close(self) -> None: ...


def ending(reason: str = "stop", tokens: int = 7) -> Ending:
    return Ending(reason, tokens, 30, 1.5, 0.5, 6.0)  # type: ignore[arg-type]


def reply(thinking: str = "two and two", answer: str = "4") -> list[Step]:
    """A reply that comes word by word and ends by itself."""
    parts = (("thinking", thinking), ("answer", answer))
    pieces = [(part, word) for part, text in parts for word in text.split(" ") if text]
    said = [
        Piece(part, word if n == 0 or pieces[n - 1][0] != part else f" {word}", n + 1)  # type: ignore[arg-type]
        for n, (part, word) in enumerate(pieces)
    ]
    return [*said, ending(tokens=len(said) + 1)]
