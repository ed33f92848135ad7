"""From parts to the files of the data folder: sources interleaved, dropped rows as rejects."""

import json
from collections.abc import Iterator
from time import monotonic

import numpy as np

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

_FIELDS = tuple(Row.__dataclass_fields__)


def write_rows(sources: list[Gathered], selection: Selection, writer: Writer, emit: Emit) -> None:
    """Every kept row and every reject: the train sources interleaved, then the test file."""
    streams = [_lines(each, selection, writer) for each in sources]
    mixed = [each.task.number for each in sources if not each.task.is_test]
    counts = [selection.kept(number) for number in mixed]
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
    emit(Progress("write", total, total, "rows"))


def _order(sources: list[Gathered], mixed: list[int], counts: list[int]) -> Iterator[int]:
    """The number of the source of each row."""
    yield from (mixed[place] for place in interleave(counts))
    for each in sources:
        if each.task.is_test:
            yield from (each.task.number for _ in range(each.tally.rows))


def _lines(source: Gathered, selection: Selection, writer: Writer) -> Iterator[Line]:
    """The kept rows of a source, in order; its rejects are written as they are passed."""
    begun, codes = 0, selection.of(source.task.number)
    for path in source.parts:
        with OpenPart(path) as part:
            writer.reject(part.rejects)
            here = codes[begun : begun + len(part)]
            _write_dropped(part, here, selection, writer)
            yield from _kept(part, here)
            begun += len(part)


def _kept(part: OpenPart, codes: Codes) -> Iterator[Line]:
    lines = part.texts("line")
    ids, offsets = part.lists("input_ids", "int32")
    starts = part.numbers("target_start", "int32")
    splits = part.numbers("split", "int8")
    for row in map(int, np.flatnonzero(codes == KEPT)):
        example = ids[offsets[row] : offsets[row + 1]]
        yield Line(SPLITS[splits[row]], lines[row], example, int(starts[row]))


def _write_dropped(part: OpenPart, codes: Codes, selection: Selection, writer: Writer) -> None:
    lines, places = part.texts("line"), part.texts("where")
    for row in map(int, np.flatnonzero((codes != KEPT) & (codes != LEFT_OUT))):
        values = json.loads(lines[row])
        dropped = Row(**{name: values[name] for name in _FIELDS})
        reject = Reject(
            selection.reasons[int(codes[row])], places[row].decode(), dropped.source, "", dropped
        )
        writer.reject(jsonl_line(reject.as_dict()).encode())
