"""Take a reply apart: thinking, answer, and whether its form is whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.chat.format import ChatFormat

Part = Literal["thinking", "answer"]


@dataclass(frozen=True)
class Reply:
    thinking: str
    answer: str
    """What stands after the thinking block; empty while the block is open."""
    well_formed: bool
    """Opens with one thinking block, closed and not empty, and an answer after it; in a format
    that never thinks, an answer and no block."""


def parse_reply(text: str, format: ChatFormat) -> Reply:
    """Split a raw reply (its end of turn already removed).

    A reply without a block is all answer; one with an open block has no answer yet.
    """
    opened, closed = text.count(format.think), text.count(format.end_think)
    if not opened and not closed:
        return Reply("", text.strip(), not format.thinks and bool(text.strip()))
    before, _, rest = text.rpartition(format.end_think)
    thinking = (before if closed else rest).replace(format.think, "", 1).strip()
    answer = rest.strip() if closed else ""
    starts = text.startswith(f"{format.think}\n")
    whole = format.thinks and starts and opened == closed == 1 and bool(thinking) and bool(answer)
    return Reply(thinking, answer, whole)


class ReplySplitter:
    """Splits a reply as it streams into ("thinking" | "answer", text), its tags left out."""

    def __init__(self, format: ChatFormat) -> None:
        self._tags: dict[Part, str] = {"answer": format.think, "thinking": format.end_think}
        self._part: Part = "answer"
        self._held = ""
        """Text that may be the beginning of a tag."""

    def feed(self, piece: str) -> Iterator[tuple[Part, str]]:
        """What is certain after this piece."""
        self._held += piece
        while (tag := self._tags[self._part]) in self._held:
            before, _, self._held = self._held.partition(tag)
            if before:
                yield self._part, before
            self._part = "thinking" if self._part == "answer" else "answer"
        certain = len(self._held) - _overlap(self._held, tag)
        if certain:
            yield self._part, self._held[:certain]
            self._held = self._held[certain:]

    def end(self) -> Iterator[tuple[Part, str]]:
        """What was held back, which was no tag after all."""
        if self._held:
            yield self._part, self._held
            self._held = ""


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that begins `tag`."""
    return next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0)
