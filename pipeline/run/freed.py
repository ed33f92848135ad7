"""freed.json: the files that `pipe clean` took out of a finished stage, which stays finished."""

import json
from collections.abc import Iterable
from pathlib import Path

from pipeline.run.files import sync_file, write_json

NAME = "freed.json"
"""Beside the manifest, which describes the files still; gone when the stage is published anew."""


def freed_files(folder: Path) -> list[str]:
    """Paths below the stage's folder that were freed and are not there again, sorted."""
    try:
        names = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return sorted(name for name in map(str, names) if not (folder / name).exists())
    except (OSError, ValueError, TypeError):
        return []


def restore_files(folder: Path, made: Path) -> None:
    """Put what was freed back in its place, out of the folder `made`."""
    for name in freed_files(folder):
        (made / name).replace(folder / name)
        sync_file(folder / name)
    (folder / NAME).unlink()
    sync_file(folder)


def free_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files of a finished stage. Killed on the way, it leaves no file gone unrecorded."""
    leaving = sorted(names)
    write_json(folder / NAME, sorted({*freed_files(folder), *leaving}))
    for name in leaving:
        (folder / name).unlink(missing_ok=True)
