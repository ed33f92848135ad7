"""Rows on disk: one JSON object a line, UTF-8, `\\n` at each end."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import ChangedInput, PipeError
from pipeline.run.folder import Run


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file that a stage wrote. Raises ChangedInput where a line is none."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            try:
                yield dict(json.loads(line))
            except (ValueError, TypeError) as error:
                raise ChangedInput(
                    f"{path}, line {number}, is no row: {error}", "Run: pipe prepare --force"
                ) from None


def jsonl_line(record: Mapping[str, Any]) -> str:
    """The record as one line, keys in the order given."""
    return json.dumps(record, ensure_ascii=False) + "\n"


def held_out_rows(run: Run, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows that training has not seen, from the first on. Raises PipeError for none."""
    rows = list(islice(read_jsonl(run.folder("data") / "test.jsonl"), limit))
    if not rows:
        raise PipeError(
            "There is no test row to ask.", "Set data.test or data.test_share, then: pipe prepare"
        )
    return rows
