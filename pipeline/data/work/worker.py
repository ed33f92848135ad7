"""One chunk's records become kept rows and rejects. Runs in a worker process or in this one."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

from pipeline.chat import Encoded, Encoder, Exchange
from pipeline.data.read.chunks import Chunk, Item, Record, Unreadable
from pipeline.data.read.rows import Reject, Row, to_row
from pipeline.data.work.filters import checks, first_reason
from pipeline.data.work.fingerprints import Fingerprint, fingerprint
from pipeline.recipe import Columns, Filters

Split = Literal["train", "eval", "test", "general"]
SPLITS: tuple[Split, ...] = ("train", "eval", "test", "general")

Kind = Literal["train", "test", "general"]
"""What a source is for. All rows of the last two fall to the split of that name at first."""

_LONGEST_TOKEN = 256
"""Characters, twice Llama 3's longest: a row of megabytes is told too long without encoding it."""

_END_OF_TURN = 1
"""Tokens: an example that supervises no other teaches to say nothing."""


@dataclass(frozen=True)
class Task:
    """All that a source's rows depend on, besides the base's tokenizer and the chat format."""

    number: int
    dataset: str
    columns: Columns
    filters: Filters
    max_seq_length: int
    seed: int
    draw_seed: int
    """Draws the rows that a weight takes."""
    kind: Kind
    eval_share: float
    test_share: float
    no_thinking_share: float


@dataclass(frozen=True)
class Kept:
    """A row and its encoded example."""

    row: Row
    where: str
    fingerprints: Fingerprint
    """Of the question."""
    split: Split
    thinking: bool
    """Whether the reasoning is in the example."""
    example: Encoded
    came: int
    """Tokens of the example as the row came; more than it has now where it was cut to fit."""
    draw: int
    """Uniform in 0 .. 2**64 - 1: a mixture takes the smallest."""


@dataclass(frozen=True)
class Worked:
    """What became of a chunk, in the records' order."""

    kept: tuple[Kept, ...]
    rejects: tuple[Reject, ...]
    too_long: tuple[int, ...]
    """Tokens of each row that was dropped for its length; a lower bound for the hugest."""


@dataclass(frozen=True)
class _Candidate:
    """A row that passed the filters and is to be encoded."""

    row: Row
    where: str
    key: str
    fingerprints: Fingerprint
    split: Split
    thinking: bool
    dropped: int
    """Tokens that the question was cut by."""

    @property
    def exchange(self) -> Exchange:
        row = self.row
        reasoning = row.reasoning if self.thinking else None
        return Exchange(row.system, row.question, reasoning, row.answer, row.reply_start)


class Worker:
    """Works on the chunks of one source."""

    def __init__(self, encoder: Encoder, task: Task) -> None:
        self._encoder = encoder
        self._task = task
        self._checks = checks(task.filters)
        self._most_characters = task.max_seq_length * _LONGEST_TOKEN

    def work(self, chunk: Chunk) -> Worked:
        """Read, filter and encode every record; a bad one is a reject, never an exception."""
        too_long: list[int] = []
        found = [
            self._candidate(record, where, index, too_long)
            for index, (where, record) in zip(count(chunk.first), chunk.items(), strict=False)
        ]
        candidates = [each for each in found if isinstance(each, _Candidate)]
        encoded = iter(self._encoder.examples([each.exchange for each in candidates]))
        results = [
            self._settled(each, next(encoded), too_long) if isinstance(each, _Candidate) else each
            for each in found
        ]
        return Worked(
            tuple(each for each in results if isinstance(each, Kept)),
            tuple(each for each in results if isinstance(each, Reject)),
            tuple(too_long),
        )

    def lengths(self, items: Iterable[Item]) -> list[int]:
        """Tokens of each record's example, without those that are rejected."""
        found = (self._candidate(each, where, n, []) for n, (where, each) in enumerate(items))
        exchanges = [each.exchange for each in found if isinstance(each, _Candidate)]
        return [len(each.ids) for each in self._encoder.examples(exchanges) if each]

    def _candidate(
        self, record: Record, where: str, index: int, too_long: list[int]
    ) -> _Candidate | Reject:
        task = self._task
        if isinstance(record, Unreadable):
            return Reject(record.reason, where, task.dataset, record.excerpt)
        row = to_row(task.columns, record, where, task.dataset, correct=task.filters.correct)
        if isinstance(row, Reject):
            return row
        fitting = self._bounded(row)
        if fitting is None:
            characters = sum(map(len, _texts(row)))
            too_long.append(max(task.max_seq_length + 1, characters // _LONGEST_TOKEN))
            return _reject("too_long", where, row)
        if reason := first_reason(self._checks, fitting):
            return _reject(reason, where, row)
        fitting, dropped = self._cut_question(fitting)
        # a general row is the same draw whatever other sources there are
        key = f"{'general' if task.kind == 'general' else task.number}:{index}:{row.id}"
        fingerprints = fingerprint(_without_prompt(fitting.question, task.columns.prompt))
        split = self._split(fingerprints.key)
        share = 0.0 if split == "test" else task.no_thinking_share
        thinks = self._encoder.format.thinks and row.reasoning is not None and split != "general"
        thinking = thinks and self._share("thinking", key) >= share
        return _Candidate(fitting, where, key, fingerprints, split, thinking, dropped)

    def _bounded(self, row: Row) -> Row | None:
        """The row where it may fit, its reasoning cut coarsely if it may be cut; else None."""
        over = sum(map(len, _texts(row))) - self._most_characters
        if over <= 0:
            return row
        if self._task.filters.over_long == "drop" or len(row.reasoning or "") <= over:
            return None
        return replace(row, reasoning=(row.reasoning or "")[:-over])

    def _cut_question(self, row: Row) -> tuple[Row, int]:
        """The row with its own question no longer than is asked for, and tokens that it lost."""
        most, prompt = self._task.filters.question_tokens, self._task.columns.prompt
        own = _without_prompt(row.question, prompt)
        # no token has less than a byte
        if most is None or len(own.encode()) <= most:
            return row, 0
        kept = self._encoder.beginning(own, most)
        if kept == own:
            return row, 0
        shorter = kept if prompt is None else prompt.replace("{question}", kept)
        lost = len(self._encoder.content_ids(own)) - len(self._encoder.content_ids(kept))
        return replace(row, question=shorter.replace("\r\n", "\n").strip()), lost

    def _settled(
        self,
        candidate: _Candidate,
        example: Encoded | None,
        too_long: list[int],
    ) -> Kept | Reject:
        """The encoded row, or the reason why there is none."""
        if example is None:
            return _reject("prompt_boundary", candidate.where, candidate.row)
        if len(example.ids) - example.target_start <= _END_OF_TURN:
            return _reject("nothing_to_learn", candidate.where, candidate.row)
        row, whole = candidate.row, len(example.ids)
        if whole > self._task.max_seq_length:
            shorter = self._shortened(candidate, example)
            if shorter is None:
                too_long.append(whole)
                return _reject("too_long", candidate.where, row)
            row, example = shorter
        return Kept(
            row,
            candidate.where,
            candidate.fingerprints,
            candidate.split,
            candidate.thinking,
            example,
            whole + candidate.dropped,
            _draw(self._task.draw_seed, "mixture", candidate.key),
        )

    def _shortened(self, candidate: _Candidate, example: Encoded) -> tuple[Row, Encoded] | None:
        """The row with the end of its reasoning cut so that it fits, where that is asked for."""
        row, longest = candidate.row, self._task.max_seq_length
        if self._task.filters.over_long == "drop" or not candidate.thinking:
            return None
        while len(example.ids) > longest:
            left = self._encoder.shortened(row.reasoning or "", len(example.ids) - longest)
            if not left.strip():
                return None
            row = replace(row, reasoning=left.strip())
            (encoded,) = self._encoder.examples([replace(candidate, row=row).exchange])
            if encoded is None or len(encoded.ids) >= len(example.ids):
                return None
            example = encoded
        return row, example

    def _split(self, question_key: int) -> Split:
        """By a hash of seed and question: all replies to a question fall to one split."""
        task = self._task
        if task.kind != "train":
            return task.kind
        drawn = self._share("split", str(question_key))
        if drawn < task.test_share:
            return "test"
        return "eval" if drawn < task.test_share + task.eval_share else "train"

    def _share(self, purpose: str, key: str) -> float:
        """Uniform in [0, 1)."""
        return (_draw(self._task.seed, purpose, key) >> 16) / 2**48


def _draw(seed: int, purpose: str, key: str) -> int:
    """Uniform in 0 .. 2**64 - 1."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _without_prompt(question: str, prompt: str | None) -> str:
    """The dataset's own question: what all rows share would make them all near-duplicates."""
    before, _, after = (prompt or "{question}").replace("\r\n", "\n").partition("{question}")
    return question.removeprefix(before.lstrip()).removesuffix(after.rstrip())


def _texts(row: Row) -> Sequence[str]:
    return [text for text in (row.system, row.question, row.reasoning, row.answer) if text]


def _reject(reason: str, where: str, row: Row) -> Reject:
    return Reject(reason, where, row.source, "", row)
