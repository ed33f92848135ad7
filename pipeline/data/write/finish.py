"""From parts to the files of the data folder: sources interleaved, dropped rows as rejects."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.chat import Encoded, Encoder, Message, conversation_of
from pipeline.data.choose.mixture import interleave
from pipeline.data.choose.selection import KEPT, LEFT_OUT, Codes, Selection
from pipeline.data.read.rows import Reject, Row
from pipeline.data.work.gather import Gathered
from pipeline.data.work.parts import OpenPart
from pipeline.data.work.worker import SPLITS
from pipeline.data.write.writer import Line, Writer
from pipeline.run import Emit, Progress
from pipeline.run.rows import jsonl_line

_EVERY = 0.5
"""Seconds between two Progress events."""

_GENERAL = SPLITS.index("general")

_FIELDS = frozenset(Row.__dataclass_fields__)


def write_rows(
    sources: list[Gathered], selection: Selection, writer: Writer, encoder: Encoder, emit: Emit
) -> None:
    """Every kept row and every reject: the sources interleaved, general rows that are trained
    among them, then the test file, then the general rows that are held apart.
    """
    streams = [_lines(each, selection, writer) for each in sources]
    mixed = [each.task.number for each in sources if each.task.kind != "test"]
    counts = [selection.kept(number) - selection.held_apart(number) for number in mixed]
    total = sum(selection.kept(each.task.number) for each in sources)
    said = monotonic()
    for done, number in enumerate(_order(sources, mixed, counts), 1):
        writer.add(next(streams[number]))
        if monotonic() - said >= _EVERY:
            said = monotonic()
            emit(Progress("write", done, total, "rows"))
    for stream in streams:
        # the rejects of the parts after the last kept row
        for _ in stream:
            raise AssertionError("a kept row was not written")
    for line in _held_apart(sources, selection, encoder):
        writer.add(line)
    emit(Progress("write", total, total, "rows"))


def _order(sources: list[Gathered], mixed: list[int], counts: list[int]) -> Iterator[int]:
    """The number of the source of each row."""
    yield from (mixed[place] for place in interleave(counts))
    for each in sources:
        if each.task.kind == "test":
            yield from (each.task.number for _ in range(each.tally.rows))


def _lines(source: Gathered, selection: Selection, writer: Writer) -> Iterator[Line]:
    """The kept rows of a source, in order, without those held apart.

    Its rejects are written as they are passed.
    """
    begun, number = 0, source.task.number
    codes, splits = selection.of(number), selection.splits_of(number)
    for path in source.parts:
        with OpenPart(path) as part:
            here = slice(begun, begun + len(part))
            writer.reject(part.rejects)
            _write_dropped(part, codes[here], selection, writer)
            yield from _kept(part, codes[here], splits[here])
            begun += len(part)


def _kept(part: OpenPart, codes: Codes, splits: NDArray[np.int8]) -> Iterator[Line]:
    lines = part.texts("line")
    ids, offsets = part.lists("input_ids", "int32")
    starts = part.numbers("target_start", "int32")
    for row in map(int, np.flatnonzero((codes == KEPT) & (splits != _GENERAL))):
        example = ids[offsets[row] : offsets[row + 1]]
        yield Line(SPLITS[splits[row]], lines[row], example, int(starts[row]))


def _held_apart(sources: list[Gathered], selection: Selection, encoder: Encoder) -> Iterator[Line]:
    for source in sources:
        codes, splits = (each(source.task.number) for each in (selection.of, selection.splits_of))
        rows = np.flatnonzero((codes == KEPT) & (splits == _GENERAL))
        for text in _texts(source.parts, rows):
            example = plain_example(encoder, json.loads(text))
            ids = np.array(example.ids, "int32")
            yield Line("general", text, ids, example.target_start)


def _texts(parts: Sequence[Path], rows: NDArray[np.int64]) -> Iterator[bytes]:
    """The lines of these rows of a source."""
    begun = 0
    for path in parts:
        with OpenPart(path) as part:
            texts = part.texts("line")
            here = rows[(rows >= begun) & (rows < begun + len(part))] - begun
            found = [texts[int(row)] for row in here]
            begun += len(part)
        yield from found


def plain_example(encoder: Encoder, row: Mapping[str, Any]) -> Encoded:
    """The row as the base answers it: right after the header, without a thinking block.

    Supervised from the reply's second token on. The first decides whether to think, and a model
    that has learned to is not to be blamed for it: what follows tells what it still knows.
    """
    asked = conversation_of(row)
    prompt = encoder.prompt(asked)
    ids = encoder.prompt([*asked, Message(role="assistant", content=row["answer"])])
    pairs = zip(prompt, ids, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return Encoded((*ids, encoder.end_of_turn_id), same + 1)


def _write_dropped(part: OpenPart, codes: Codes, selection: Selection, writer: Writer) -> None:
    lines, places = part.texts("line"), part.texts("where")
    for row in map(int, np.flatnonzero((codes != KEPT) & (codes != LEFT_OUT))):
        values = json.loads(lines[row])
        dropped = Row(**{name: values[name] for name in values.keys() & _FIELDS})
        reject = Reject(
            selection.reasons[int(codes[row])], places[row].decode(), dropped.source, "", dropped
        )
        writer.reject(jsonl_line(reject.as_dict()).encode())
