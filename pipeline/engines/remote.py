"""What engines behind HTTP share: several requests at a time, and replies that come split."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from threading import Event
from time import perf_counter
from typing import Literal

from pipeline.chat import ChatFormat, Conversation, Reply, parse_reply
from pipeline.engines.completion import Completion
from pipeline.errors import PipeError

Ask = Callable[[int, Conversation, Event], Completion]
"""(place, conversation, stop) -> its reply; it gives up soon after `stop` is set."""

AT_ONCE = 16
"""Requests under way to one server: more would queue there, and their wait count as its time."""


def in_order(ask: Ask, conversations: Sequence[Conversation], at_once: int) -> Iterator[Completion]:
    """The reply to each conversation, in order, `at_once` of them, at most AT_ONCE, at a time.

    An error is raised in its place, and nothing more is begun. Closing the iterator stops what is
    under way and waits for none of it.
    """
    stop, failed = Event(), Event()

    def one(place: int) -> Completion | None:
        if failed.is_set() or stop.is_set():
            return None  # nobody will look
        try:
            return ask(place, conversations[place], stop)
        except PipeError:
            failed.set()
            raise

    threads = min(at_once, AT_ONCE, len(conversations))
    if threads <= 1:
        yield from (ask(place, each, stop) for place, each in enumerate(conversations))
        return
    # its threads are daemons: one that hangs in a read outlives neither this loop nor the program
    with ThreadPool(threads) as pool:
        try:
            yield from filter(None, pool.imap(one, range(len(conversations))))
        finally:
            stop.set()


@dataclass
class Arriving:
    """A reply as it comes in, thinking and content apart."""

    format: ChatFormat
    thinking: str = ""
    content: str = ""
    pieces: int = 0
    first_token_s: float | None = None
    """From the start to the first text: a server may hold back a tag, and have others waiting."""
    _started: float = field(default_factory=perf_counter)

    def add(self, part: Literal["thinking", "content"], text: str) -> None:
        if not text:
            return
        if self.first_token_s is None:
            self.first_token_s = perf_counter() - self._started
        self.pieces += 1
        if part == "thinking":
            self.thinking += text
        else:
            self.content += text

    def completion(self, *, tokens: int | None, stopped: bool) -> Completion:
        """What came, written again as the model wrote it; without `tokens` the pieces count.

        A server takes the tags and the spaces around them away, so those are the format's own.
        """
        said, thinking = _whole(self.content), _whole(self.thinking).strip()
        if not thinking:
            text = said
            reply = parse_reply(text, self.format)
        else:
            answer = said.strip()
            text = self.format.target(thinking, answer)
            if not answer:  # whether the block was closed, nobody said
                text = f"{self.format.think}\n{thinking}"
            tags = (self.format.think, self.format.end_think)
            leaked = any(tag in part for tag in tags for part in (thinking, answer))
            reply = Reply(thinking, answer, bool(answer) and not leaked)
        count = self.pieces if tokens is None else tokens
        return Completion(text, reply, count, stopped, first_token_s=self.first_token_s)


def _whole(text: str) -> str:
    """The text with the halves of a surrogate pair joined, where a server sent them in two pieces.

    A half alone, which UTF-8 cannot hold, becomes U+FFFD.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
