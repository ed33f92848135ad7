"""Rows of a study as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def csv_of(lines: Sequence[Mapping[str, Any]]) -> str:
    """A line a row, below the names of the first one's columns, which all rows have."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
