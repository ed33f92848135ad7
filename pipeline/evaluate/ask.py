"""One engine, every task: questions to replies, own replies to log-probabilities, and the times."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from pipeline.chat import Encoded, Encoder
from pipeline.engines.completion import Completion, Decoding, Engine
from pipeline.engines.contenders import Contender
from pipeline.evaluate.items import Item, is_right
from pipeline.evaluate.kept import Answer, Likelihood, Log, read_facts, write_facts
from pipeline.evaluate.metrics import Measured
from pipeline.run import Emit, Note, Progress

BATCHES = 4
"""Batches that an engine is asked for at a time: so much at most a killed eval asks again."""
ALONE = 5
"""Questions whose first token is waited for."""


@dataclass(frozen=True)
class Asked:
    """A task's questions, and how they are put."""

    name: str
    items: Sequence[Item]
    own: Mapping[int, Encoded]
    """Number of each item with a reply of its own -> that exchange, as training would encode it."""
    folder: Path
    """Where the answers are kept while the work goes on."""
    decoding: Decoding
    samples: int
    leg: int
    """Questions that an engine is asked at a time."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """Engine -> what its answers hang on beside the folder's name: what is served."""

    @property
    def turns(self) -> list[tuple[Item, int]]:
        """Every question as often as it is asked, with the sample's number."""
        return [(item, sample) for item in self.items for sample in range(self.samples)]


@dataclass(frozen=True)
class Outcome:
    """An engine's replies to a task, in the order of its turns, and how fast they came."""

    replies: list[Measured]
    speed: dict[str, float]


class Session:
    """One engine, opened when there is something to ask it, and closed at the end."""

    def __init__(self, contender: Contender, encoder: Encoder, emit: Emit) -> None:
        self.name, self.shown = contender.name, contender.shown
        self.scores = contender.scores
        self.encoder = encoder
        self.emit = emit
        self._contender = contender
        self._engine: Engine | None = None
        self._load_s = 0.0

    @property
    def engine(self) -> Any:
        """Opened by the first use; a Scorer too where `scores` says so."""
        if self._engine is None:
            started = perf_counter()
            self._engine = self._contender.open()
            self._load_s = perf_counter() - started
        return self._engine

    def facts(self, asked: Asked) -> dict[str, float]:
        """What loading took, memory with the model, and the wait for a first token.

        Those of the last time, where nothing was asked now.
        """
        path = asked.folder / f"{self.name}.facts.json"
        if self._engine is None:
            return read_facts(path)
        facts = {
            "load_s": self._load_s,
            "memory_bytes": self._engine.memory_bytes(),
            "first_token_s": self._first_token_s(asked),
        }
        known = {name: value for name, value in facts.items() if value is not None}
        write_facts(path, known)
        return known

    def _first_token_s(self, asked: Asked) -> float:
        """The median over a few questions that are asked alone: in a batch they would queue."""
        waits = []
        for item in asked.items[:ALONE]:
            started = perf_counter()
            (completion,) = self.engine.answers([item.conversation], Decoding(max_new_tokens=1))
            known = completion.first_token_s
            waits.append(perf_counter() - started if known is None else known)
        return median(waits)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()


@contextmanager
def session(contender: Contender, encoder: Encoder, emit: Emit) -> Iterator[Session]:
    opened = Session(contender, encoder, emit)
    try:
        yield opened
    finally:
        opened.close()


def ask(here: Session, asked: Asked) -> Outcome:
    """All replies of one engine to one task."""
    answers = _answers(here, asked)
    likelihoods = _likelihoods(here, asked) if here.scores else {}
    thinking = [len(here.encoder.content_ids(answer.thinking)) for answer in answers]
    replies = [
        Measured(item, answer, tokens, likelihoods.get(number // asked.samples))
        for number, ((item, _), answer, tokens) in enumerate(
            zip(asked.turns, answers, thinking, strict=True)
        )
    ]
    return Outcome(replies, _speed(answers) | here.facts(asked))


def _answers(here: Session, asked: Asked) -> list[Answer]:
    turns = asked.turns
    mark = asked.marks.get(here.name, "")
    keys = [f"{item.id} {sample} {mark}".rstrip() for item, sample in turns]
    log = Log(asked.folder / f"{here.name}.answers.jsonl", Answer, keys, asked.leg)
    show = _Shown(here, asked)
    if kept := log.load():
        here.emit(Note(f"{show.task} goes on with {kept} answers that are there."))
    for (item, _), answer in zip(turns, log.found, strict=False):
        show.count(item, answer)
    show(kept)
    while (start := len(log.found)) < len(turns):
        leg = turns[start : start + asked.leg]
        decoding = replace(asked.decoding, seed=asked.decoding.seed + start)
        replies = here.engine.answers([item.conversation for item, _ in leg], decoding)
        before = perf_counter()
        for (item, _), completion in zip(leg, replies, strict=True):
            answer = _answer(completion, perf_counter() - before)
            log.append(answer)
            show.count(item, answer)
            show(len(log.found))
            before = perf_counter()
    return log.found


class _Shown:
    """The progress of one engine in one task."""

    def __init__(self, here: Session, asked: Asked) -> None:
        self.task = f"eval {here.shown}" + (f", {asked.name}" if asked.name != "test" else "")
        self._emit, self._total = here.emit, len(asked.turns)
        self._graded = self._right = 0

    def count(self, item: Item, answer: Answer) -> None:
        if item.reference is not None:
            self._graded += 1
            self._right += answer.stopped and is_right(answer.answer, item.reference)

    def __call__(self, done: int) -> None:
        figures = {"right": f"{self._right / self._graded:.1%}"} if self._graded else {}
        self._emit(Progress(self.task, done, self._total, "questions", figures))


def _answer(completion: Completion, seconds: float) -> Answer:
    reply = completion.reply
    return Answer(
        text=completion.text,
        thinking=reply.thinking,
        answer=reply.answer,
        well_formed=reply.well_formed,
        stopped=completion.stopped,
        tokens=completion.tokens,
        seconds=seconds,
    )


def _likelihoods(here: Session, asked: Asked) -> dict[int, Likelihood]:
    """Number of the item -> how likely the engine finds its own reply.

    What is no finite number is announced here, and left out by the metrics.
    """
    keys = [f"{asked.items[number].id} {number}" for number in asked.own]
    log = Log(asked.folder / f"{here.name}.scores.jsonl", Likelihood, keys, asked.leg)
    log.load()
    encoded = list(asked.own.values())
    task = f"score {here.shown}" + (f", {asked.name}" if asked.name != "test" else "")
    while (start := len(log.found)) < len(encoded):
        for logs in here.engine.score(encoded[start : start + asked.leg]):
            log.append(Likelihood(float(np.sum(logs, dtype=np.float64)), len(logs)))
        here.emit(Progress(task, len(log.found), len(encoded), "replies"))
    if odd := sum(not isfinite(each.total) for each in log.found):
        what = f"{odd} of {len(encoded)} likelihoods are no finite numbers"
        here.emit(Note(f"{task}: {what} and are left out of perplexity.", warning=True))
    return dict(zip(asked.own, log.found, strict=True))


def own_replies(encoder: Encoder, items: Sequence[Item], longest: int) -> dict[int, Encoded]:
    """The items' own replies after their questions, where both have at most `longest` tokens."""
    exchanges = {number: item.exchange for number, item in enumerate(items)}
    own = {number: exchange for number, exchange in exchanges.items() if exchange is not None}
    encoded = zip(own, encoder.examples(list(own.values())), strict=True)
    return {number: text for number, text in encoded if text and len(text.ids) <= longest}


def _speed(answers: Sequence[Answer]) -> dict[str, float]:
    """Seconds that all replies took, and tokens a second over all of them at once."""
    seconds = sum(answer.seconds for answer in answers)
    tokens = sum(answer.tokens for answer in answers)
    return {"seconds": seconds} | ({"tokens_per_s": tokens / seconds} if seconds > 0 else {})
