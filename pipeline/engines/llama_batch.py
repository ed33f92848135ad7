"""Replies to many conversations, several at a time in one batch: as one ends, the next enters."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.child import Message
from pipeline.engines.llama_context import N_BATCH, Feed, LlamaContext

Logits = NDArray[np.float32]


@dataclass
class _Slot:
    """A conversation that is being replied to, in one of the context's sequences."""

    index: int
    sequence: int
    pending: list[int]
    """Tokens not decoded yet: the prompt, then each token that was chosen."""
    left: int
    """Tokens that may still be chosen."""
    random: np.random.Generator
    entered: float
    position: int = 0
    first_token_s: float | None = None


class Replies:
    """`request` has `prompts` (ids), `max_new_tokens`, `temperature`, `top_p` and `seed`.

    A reply draws from a generator of its own, seeded by (seed, its index), so that neither its
    neighbours nor the order of the batch change what it draws. An empty prompt has no reply.
    """

    def __init__(self, context: LlamaContext, request: Message) -> None:
        self._context, self._request = context, request
        self._waiting = deque(enumerate(request["prompts"]))
        self._free = list(range(context.sequences))
        self._slots: list[_Slot] = []

    def step(self) -> list[Message]:
        """What came next, [] when all replies have ended.

        {"index", "token", "gap"} for a token of a reply, {"index", "stopped", "gap",
        "first_token_s"} for its end: `gap` is then that of the token that ended it.
        """
        events: list[Message] = []
        while not events and (self._slots or self._waiting):
            events += self._admit()
            feeds = self._feeds()
            rows = iter(self._context.decode([feed for _, feed in feeds]) if feeds else ())
            for slot, feed in feeds:
                if feed.wanted:
                    events += self._chosen(slot, next(rows))
        return events

    def _admit(self) -> Iterator[Message]:
        while self._free and self._waiting:
            index, prompt = self._waiting.popleft()
            left = min(self._request["max_new_tokens"], self._request["n_ctx"] - len(prompt))
            if left <= 0 or not prompt:  # nothing to choose, or nothing to choose by
                yield _end(index, stopped=False)
                continue
            random = np.random.default_rng((self._request["seed"], index))
            sequence = self._free.pop(0)
            self._context.forget(sequence)
            self._slots.append(_Slot(index, sequence, prompt, left, random, perf_counter()))

    def _feeds(self) -> list[tuple[_Slot, Feed]]:
        """Running replies first, then as much of new prompts as the batch has room for."""
        room, feeds = N_BATCH, []
        for slot in sorted(self._slots, key=lambda slot: len(slot.pending)):
            tokens = slot.pending[:room]
            if not tokens:
                break
            room -= len(tokens)
            slot.pending = slot.pending[len(tokens) :]
            feed = Feed(slot.sequence, slot.position, tokens, int(not slot.pending))
            feeds.append((slot, feed))
            slot.position += len(tokens)
        # llama.cpp decodes together only what stands in the order of its sequences
        return sorted(feeds, key=lambda feed: feed[1].sequence)

    def _chosen(self, slot: _Slot, logits: Logits) -> Iterator[Message]:
        if slot.first_token_s is None:
            slot.first_token_s = perf_counter() - slot.entered
        token, gap = self._next(slot, logits)
        if self._context.ends(token):
            yield self._leave(slot, stopped=True, gap=gap)
            return
        yield {"index": slot.index, "token": token, "gap": gap}
        slot.pending, slot.left = [token], slot.left - 1
        if not slot.left:
            yield self._leave(slot, stopped=False)

    def _next(self, slot: _Slot, logits: Logits) -> tuple[int, float | None]:
        temperature, top_p = self._request["temperature"], self._request["top_p"]
        if temperature > 0:
            return sampled(logits, temperature, top_p, slot.random), None
        return greedy(logits)

    def _leave(self, slot: _Slot, *, stopped: bool, gap: float | None = None) -> Message:
        self._slots.remove(slot)
        self._free.append(slot.sequence)
        return _end(slot.index, stopped=stopped, gap=gap, first_token_s=slot.first_token_s)


def greedy(logits: Logits) -> tuple[int, float]:
    """The likeliest token and its lead in logits over the second."""
    best = int(logits.argmax())
    second = max(logits[:best].max(initial=-np.inf), logits[best + 1 :].max(initial=-np.inf))
    return best, float(logits[best] - second)


def sampled(logits: Logits, temperature: float, top_p: float, random: np.random.Generator) -> int:
    """A token drawn at `temperature` from the fewest tokens that hold `top_p` of the probability.

    Temperature first, as Transformers and vLLM have it; the nucleus of Holtzman et al. 2020
    (https://arxiv.org/abs/1904.09751).
    """
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    weights /= weights.sum()
    # tokens below this hold less than 1 - top_p together: none is needed, and few are left to sort
    kept = np.flatnonzero(weights >= (1 - top_p) / len(weights))
    kept = kept[np.argsort(-weights[kept], kind="stable")]
    sums = np.cumsum(weights[kept])
    if top_p < 1:
        sums = sums[: np.searchsorted(sums, top_p) + 1]
    place = np.searchsorted(sums, random.random() * sums[-1], side="right")
    return int(kept[min(place, len(sums) - 1)])


def _end(index: int, *, stopped: bool, **known: Any) -> Message:
    return {"index": index, "stopped": stopped, "gap": None, "first_token_s": None, **known}
