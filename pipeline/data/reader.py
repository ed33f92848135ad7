"""One source's records, checked, split and encoded, go to the writer."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from time import monotonic

from pipeline.chat import Encoded, Encoder
from pipeline.data.rows import Reject, Row, Shape, excerpt_of, shape_of, to_row
from pipeline.data.sources import Item, Opened, Unreadable
from pipeline.data.writer import Split, Writer
from pipeline.errors import PipeError
from pipeline.recipe import Recipe
from pipeline.run import Emit, Progress

_LOOK_AHEAD = 50
"""Records among which one must have known columns."""

_LONGEST_TOKEN = 256
"""Characters, twice Llama 3's longest: a row of megabytes is told too long without encoding it."""

_EVERY = 0.5
"""Seconds between two Progress events."""


@dataclass
class Reader:
    """Reads sources into the writer."""

    recipe: Recipe
    encoder: Encoder
    writer: Writer
    emit: Emit

    def read(self, opened: Opened, number: int, *, is_test: bool) -> None:
        """Every record of one source; raises PipeError where most are rejected."""
        self.writer.begin_source()
        items = opened.items()
        head = list(islice(items, _LOOK_AHEAD))
        shape = shape_of((record for _, record in head), opened.source.dataset)
        for index, item in enumerate(self._shown(chain(head, items), opened)):
            row = _row(shape, item, opened.source.dataset)
            if isinstance(row, Reject):
                self.writer.reject(row)
                continue
            key = f"{number}:{index}:{row.id}"
            split: Split = "test" if is_test else self._split(key)
            self._encode(row, split, key, item[0])
        _check(opened.source.dataset, self.writer)

    def _split(self, key: str) -> Split:
        """By a hash of seed, position and id: the same on every machine."""
        data, drawn = self.recipe.data, self._draw("split", key)
        test_share = 0.0 if data.test else data.test_share
        if drawn < test_share:
            return "test"
        return "eval" if drawn < test_share + data.eval_share else "train"

    def _encode(self, row: Row, split: Split, key: str, where: str) -> None:
        """Write the row with its example, or reject what cannot be one."""
        share = 0.0 if split == "test" else self.recipe.data.no_thinking_share
        thinking = self._draw("thinking", key) >= share
        example = self._example(row, thinking=thinking)
        if isinstance(example, Encoded):
            self.writer.add(row, split, example, thinking=thinking)
        else:
            self.writer.reject(Reject(example, where, row.source, "", row))

    def _example(self, row: Row, *, thinking: bool) -> Encoded | str:
        """The encoded example, or the reason why there is none."""
        reasoning = row.reasoning if thinking else None
        longest = self.recipe.model.max_seq_length
        texts = (row.system, row.question, reasoning, row.answer)
        if sum(len(text or "") for text in texts) > longest * _LONGEST_TOKEN:
            return "too_long"
        try:
            example = self.encoder.example(row.question, reasoning, row.answer, system=row.system)
        except ValueError:
            return "prompt_boundary"
        return example if len(example.ids) <= longest else "too_long"

    def _draw(self, purpose: str, key: str) -> float:
        """Uniform in [0, 1)."""
        text = f"{self.recipe.seed}:{purpose}:{key}"
        digest = hashlib.sha256(text.encode()).digest()
        return int.from_bytes(digest[:6], "big") / 2**48

    def _shown(self, items: Iterator[Item], opened: Opened) -> Iterator[Item]:
        """The items, with a Progress event twice a second and one at the end."""
        total, begun, tokens = opened.total(), monotonic(), self.writer.tokens()
        shown, done = begun, 0
        task = f"prepare {opened.source.dataset}"

        def progress() -> Progress:
            seconds = max(monotonic() - begun, 1e-6)
            figures = {
                "rows/s": f"{done / seconds:.0f}",
                "tokens/s": f"{(self.writer.tokens() - tokens) / seconds:.0f}",
                "rejected": str(self.writer.present.rejects.total()),
            }
            return Progress(task, done, total, "rows", figures)

        for item in items:
            yield item
            done += 1
            if monotonic() - shown >= _EVERY:
                shown = monotonic()
                self.emit(progress())
        total = done
        self.emit(progress())


def _row(shape: Shape, item: Item, dataset: str) -> Row | Reject:
    where, record = item
    if isinstance(record, Unreadable):
        return Reject(record.reason, where, dataset, record.excerpt)
    if not shape.columns <= record.keys():
        return Reject("missing_column", where, dataset, excerpt_of(record))
    return to_row(shape, record, where, dataset)


def _check(dataset: str, writer: Writer) -> None:
    """Raises PipeError where more of the source is rejected than taken."""
    source = writer.present
    count = source.rejects.total()
    if count <= source.rows:
        return
    commonest = source.rejects.most_common(1)[0][0]
    raise PipeError(
        f"{count} of {count + source.rows} rows of {dataset} are rejected: "
        f"{table(source.rejects, source.first)}.",
        "Raise model.max_seq_length, or take another source."
        if commonest == "too_long"
        else "Look at the rows named, or take another source or config.",
    )


def table(reasons: Mapping[str, int], first: Mapping[str, str] | None = None) -> str:
    """Reasons and counts, the most frequent first, with where each was first met."""
    ordered = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    places = {reason: f" (first: {where})" for reason, where in (first or {}).items()}
    return ", ".join(f"{reason} {count}{places.get(reason, '')}" for reason, count in ordered)
