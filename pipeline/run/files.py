"""Durable writes and hashes."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import PipeError

_CANNOT_WRITE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO, errno.ENOTDIR,
    errno.EEXIST,
}  # fmt: skip

NOT_ALLOWED = "see that you may write there, or work in another folder"


@contextmanager
def explained_writes(what: str) -> Iterator[None]:
    """Turns the system's refusal to write `what` into a PipeError with the next step."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        cure = NOT_ALLOWED if error.errno in {errno.EACCES, errno.EROFS} else "make room"
        raise PipeError(
            f"{what} could not be written: {error}.",
            f"Nothing was published, nothing was lost: {cure}, then run it again.",
        ) from error


TEMPORARY = ".*.tmp"
"""How what a killed `write_text` leaves is called."""


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any, *, default: Callable[[Any], Any] | None = None) -> str:
    """Hex sha256 of a value's JSON with sorted keys: equal for equal values.

    `default` is json.dumps': what becomes of that which JSON does not know. Raises TypeError for
    such without it.
    """
    text = json.dumps(value, sort_keys=True, default=default)
    return hashlib.sha256(text.encode()).hexdigest()


def sync_file(path: Path) -> None:
    """fsync a file, so that a rename after it publishes whole bytes; a folder, for its names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write by rename: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Sorted keys, so that equal values are equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
