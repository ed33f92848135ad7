"""Checkpoints: published by rename, every file's hash beside them, looked into before use."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.run.files import sync_file, write_json
from pipeline.run.manifest import Entry, describe, describe_tree

NAME = "checkpoint.json"
SCHEMA = 1
KEPT = 2
"""Newest checkpoints on disk: the one to go on from, and the one before should it be bad."""

_FOLDER = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint whose files were as they were written when it was looked into."""

    folder: Path
    step: int
    best_step: int | None
    """The checkpoint that holds the best weights so far, where those are to be kept."""


@dataclass(frozen=True)
class Bad:
    """A checkpoint that is not used, and why."""

    folder: Path
    step: int
    reason: str


def publish(
    folder: Path, step: int, write: Callable[[Path], None], best_step: int | None = None
) -> Checkpoint:
    """Let `write` fill a draft; it becomes `folder/step-N` when it is whole and on the disk."""
    final = path_of(folder, step)
    draft = folder / f".{final.name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        write(draft)
        files = describe_tree(draft, skip=())
        for name in files:
            sync_file(draft / name)
        entries = {name: asdict(entry) for name, entry in files.items()}
        about = {"schema": SCHEMA, "step": step, "best_step": best_step, "files": entries}
        write_json(draft / NAME, about)
        sync_file(draft)
        _remove(final)
        draft.rename(final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    sync_file(folder)
    return Checkpoint(final, step, best_step)


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:06d}"


def good(folder: Path) -> tuple[list[Checkpoint], list[Bad]]:
    """The checkpoints in `folder` that can be gone on from, and those that cannot; newest first.

    What a crash left half made, or half removed, is removed.
    """
    found, bad = [], []
    for step in sorted(_steps(folder), reverse=True):
        path = path_of(folder, step)
        try:
            found.append(opened(path))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            bad.append(Bad(path, step, str(error) or type(error).__name__))
    whole = {each.step for each in found}
    for each in [c for c in found if c.best_step is not None and c.best_step not in whole]:
        found.remove(each)
        reason = f"the best one before it, of step {each.best_step}, cannot be used"
        bad.append(Bad(each.folder, each.step, reason))
    for draft in folder.glob(".step-*"):
        shutil.rmtree(draft, ignore_errors=True)
    return found, sorted(bad, key=lambda each: -each.step)


def opened(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, every file hashed.

    Raises ValueError naming the file that is not as it was written, or what else is wrong.
    """
    if not (folder / NAME).is_file():
        raise ValueError(f"it has no {NAME}")
    values = json.loads((folder / NAME).read_text(encoding="utf-8"))
    if values["schema"] != SCHEMA or values["step"] != int(folder.name.removeprefix("step-")):
        raise ValueError(f"{NAME} is another checkpoint's")
    for name, entry in values["files"].items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is gone")
        if path.stat().st_size != entry["bytes"]:
            raise ValueError(f"{name} has {path.stat().st_size} bytes, not {entry['bytes']}")
        if describe(path) != Entry(**entry):
            raise ValueError(f"{name} is not what was written")
    # what torch.load reads must be known by its hash
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != NAME and name not in values["files"]:
            raise ValueError(f"{name} is none of its files")
    best_step = values["best_step"]
    return Checkpoint(folder, values["step"], None if best_step is None else int(best_step))


def drop_old(folder: Path, newest: Checkpoint) -> None:
    """Keep the newest one, the one before it, and the best of each; later ones were not used."""
    steps = sorted(step for step in _steps(folder) if step <= newest.step)
    needed = {_best_step(path_of(folder, step)) for step in steps[-KEPT:]}
    for step in steps[:-KEPT]:
        if step not in needed:
            _remove(path_of(folder, step))


def _remove(folder: Path) -> None:
    """Under another name first: what bears a checkpoint's name is whole, also while it goes."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _best_step(folder: Path) -> int | None:
    try:
        found: int | None = json.loads((folder / NAME).read_text(encoding="utf-8"))["best_step"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found


def _steps(folder: Path) -> list[int]:
    """The steps of all checkpoints, whole or not, in no order."""
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return [int(match[1]) for name in names if (match := _FOLDER.fullmatch(name))]
