"""Sources mixed: how many rows of each, which ones, and in which order."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from heapq import heappop, heappush
from math import inf

import numpy as np
from numpy.typing import NDArray


def drawn(counts: Sequence[int], weights: Sequence[float] | None) -> list[int]:
    """How many of each source's rows to take, so that they stand in the ratio of the weights.

    The source with the fewest rows for its weight gives all of them; the others' shares are
    rounded down. A source without rows is left out of the ratio. None takes all rows.
    Raises ValueError where there is not one positive weight a source.
    """
    if weights is None:
        return list(counts)
    if len(weights) != len(counts) or not all(0 < weight < inf for weight in weights):
        raise ValueError("a mixture needs one positive weight a source")
    # as written in the recipe: 0.3 is three times 0.1 there, though not in binary
    exact = [Fraction(str(weight)) for weight in weights]
    filled = [count / weight for count, weight in zip(counts, exact, strict=True) if count]
    scale = min(filled, default=Fraction(0))
    return [
        int(scale * weight) if count else 0 for count, weight in zip(counts, exact, strict=True)
    ]


def chosen(draws: NDArray[np.uint64], take: int) -> NDArray[np.bool_]:
    """True for `take` rows of a source, [n]: those with the smallest draws, equal ones in order.

    Draws that are uniform, one a row, make it a uniform sample, and of two samples of one source
    the smaller is part of the larger. Raises ValueError where there are not so many rows.
    """
    if not 0 <= take <= len(draws):
        raise ValueError(f"{take} of {len(draws)} rows cannot be taken")
    if take == 0:
        return np.zeros(len(draws), np.bool_)
    last = np.partition(draws, take - 1)[take - 1]
    taken: NDArray[np.bool_] = draws < last
    equal = np.flatnonzero(draws == last)
    taken[equal[: take - np.count_nonzero(taken)]] = True
    return taken


def interleave(counts: Sequence[int]) -> Iterator[int]:
    """Source numbers, `counts[i]` times each i, so mixed that every beginning holds the ratio.

    Of the first m rows, source i has less than one row more or less than m * counts[i] / n, n
    being all rows. Row k of source i may come from row floor(k n / counts[i]) of the mixture on,
    and must come before row ceil((k + 1) n / counts[i]); of the rows that may come, the one that
    must come first does: earliest deadline first, which meets all deadlines (Steiner and Yeomans
    1993). At a tie it is the one due at (k + 1/2) / counts[i], then the lower source.
    Memory: a few numbers a source; time: about 1.5 microseconds a row.
    """
    rows = sum(counts)
    given = [0] * len(counts)
    waiting = [(0, source) for source, count in enumerate(counts) if count]
    ready: list[tuple[int, float, int]] = []
    for place in range(rows):
        while waiting and waiting[0][0] <= place:
            source = heappop(waiting)[1]
            done, count = given[source], counts[source]
            heappush(ready, (-((done + 1) * rows // -count), (done + 0.5) / count, source))
        source = heappop(ready)[2]
        given[source] += 1
        if given[source] < counts[source]:
            heappush(waiting, (given[source] * rows // counts[source], source))
        yield source
