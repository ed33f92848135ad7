"""The mean of the likeliest next numbers, weighted by their probabilities."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.study.price.weighted import kept_rows, values_of_tokens, weighted_prices

TEXTS = ["<s>", " 5", "1", "27", "٣", "x9", "", "999", "-4"]
VALUES = values_of_tokens(TEXTS)


def logs(**probabilities: float) -> np.ndarray:
    """One row, [1, vocabulary], of the tokens' probabilities by their texts."""
    known = [math.log(probabilities.get(f"t{text}", 1e-30)) for text in TEXTS]
    return np.array([known], np.float32)


def test_only_bare_ascii_digits_are_numbers() -> None:
    numbers = {text: VALUES[place] for place, text in enumerate(TEXTS) if VALUES[place] >= 0}
    assert numbers == {"1": 1, "27": 27, "999": 999}


def test_by_hand() -> None:
    # half of what the numbers have stands on 1, half on 27; an x is likelier than both
    row = logs(tx9=0.6, t1=0.1, t27=0.1)
    assert weighted_prices(row, VALUES, 3)[0] == pytest.approx(14)
    assert weighted_prices(row, VALUES, 1)[0] == 1


HALVES = st.integers(-60, 0).map(lambda number: number / 2)
"""Log-probabilities that fp32 holds exactly: a shift makes no ties."""


@given(st.lists(HALVES, min_size=len(TEXTS), max_size=len(TEXTS)), st.integers(1, 12))
def test_it_lies_between_the_numbers_that_it_is_the_mean_of(row: list[float], top: int) -> None:
    found = weighted_prices(np.array([row], np.float32), VALUES, top)[0]
    assert 1 <= found <= 999
    one = weighted_prices(np.array([row], np.float32), VALUES, 1)[0]
    assert one in (1, 27, 999)
    shifted = weighted_prices(np.array([row], np.float32) - 5, VALUES, top)[0]
    assert shifted == pytest.approx(found, rel=1e-4)


def test_kept_distributions_come_back_as_they_were_written(tmp_path: Path) -> None:
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    (tmp_path / "next").write_bytes(table.tobytes())
    assert np.array_equal(kept_rows(tmp_path / "next", 3), table)
