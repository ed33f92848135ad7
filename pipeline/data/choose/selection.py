"""What becomes of every row, as phase two wrote it down and phase three reads it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.data.work.gather import Gathered
from pipeline.data.work.parts import OpenPart
from pipeline.data.work.worker import SPLITS, Split

Codes = NDArray[np.uint8]

KEPT = 0
LEFT_OUT = 255
"""Beyond a source's weight or share: no reject, for nothing is wrong with the row."""

_GENERAL = SPLITS.index("general")


@dataclass(frozen=True)
class Selection:
    """All rows that the workers kept, source after source, and what became of each."""

    starts: NDArray[np.int64]
    """[sources + 1]: where each source's rows begin."""
    split: NDArray[np.int8]
    """Index into SPLITS; general rows that are trained stand in `train`."""
    came: NDArray[np.int32]
    """Tokens of each row as it came."""
    tokens: NDArray[np.int32]
    """... and as it is trained; fewer where it was cut to fit."""
    codes: Codes
    """KEPT, LEFT_OUT or a key of `reasons`."""
    reasons: Mapping[int, str]
    figures: Mapping[str, int] = field(default_factory=dict)
    """What the comparison found, for stats.json."""

    def of(self, source: int) -> Codes:
        """The codes of one source's rows."""
        return self.codes[self._rows(source)]

    def splits_of(self, source: int) -> NDArray[np.int8]:
        """The splits of one source's rows."""
        return self.split[self._rows(source)]

    def kept(self, source: int) -> int:
        return int((self.of(source) == KEPT).sum())

    def held_apart(self, source: int) -> int:
        """Rows of a source that only measure what the base forgets."""
        return int(((self.of(source) == KEPT) & (self.splits_of(source) == _GENERAL)).sum())

    def left_out(self, source: int) -> int:
        return int((self.of(source) == LEFT_OUT).sum())

    def cut(self, source: int) -> int:
        """Rows of a source that are kept with less text than they came with."""
        rows = self._rows(source)
        return int(((self.came[rows] > self.tokens[rows]) & (self.of(source) == KEPT)).sum())

    def rejects(self, source: Gathered) -> Counter[str]:
        """Reason -> rows, of the workers' and of this comparison."""
        codes = self.of(source.task.number)
        found = {reason: int((codes == code).sum()) for code, reason in self.reasons.items()}
        return source.tally.rejects + Counter(found)

    def first(self, source: Gathered) -> dict[str, str]:
        """Reason -> where it was first met."""
        codes = self.of(source.task.number)
        found = dict(source.tally.first)
        for code, reason in self.reasons.items():
            if len(rows := np.flatnonzero(codes == code)):
                found[reason] = _place(source, int(rows[0]))
        return found

    def lengths(self, split: Split) -> NDArray[np.int32]:
        """Tokens of the kept rows of a split."""
        here: NDArray[np.bool_] = (self.codes == KEPT) & (self.split == SPLITS.index(split))
        return self.tokens[here]

    def lengths_of(self, source: int) -> NDArray[np.int32]:
        """Tokens of the kept rows of a source."""
        here: NDArray[np.bool_] = self.of(source) == KEPT
        return self.tokens[self._rows(source)][here]

    def came_of(self, source: int) -> NDArray[np.int32]:
        """Tokens of all rows of a source, as they came."""
        return self.came[self._rows(source)]

    def came_in(self) -> NDArray[np.int32]:
        """Tokens of all rows as they came, without the general rows that were not needed."""
        used: NDArray[np.bool_] = (self.codes != LEFT_OUT) | (self.split != _GENERAL)
        return self.came[used]

    def _rows(self, source: int) -> slice:
        return slice(int(self.starts[source]), int(self.starts[source + 1]))


def _place(source: Gathered, row: int) -> str:
    for path in source.parts:
        with OpenPart(path) as part:
            if row < len(part):
                return part.texts("where")[row].decode()
            row -= len(part)
    raise IndexError(row)
