"""A study's results.json, read again."""

import json
from pathlib import Path
from typing import Any

from pipeline.errors import ChangedInput


def kept_results(path: Path, schema: int, again: str) -> dict[str, Any] | None:
    """What the study wrote last; None where there is no file.

    `again` is the command that makes it anew. Raises ChangedInput where the file is no such result.
    """
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        written = found["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ChangedInput(f"{path} cannot be read: {error}", f"Run: {again}") from None
    if written != schema:
        raise ChangedInput(
            f"{path} has schema {written}; this pipe writes {schema}.", f"Run: {again}"
        )
    return found
