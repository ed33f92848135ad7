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
    eval_loss: float | None
    """The loss on the eval rows at this step, where it was measured."""


@dataclass(frozen=True)
class Bad:
    """A checkpoint that is not used, and why."""

    folder: Path
    reason: str


def publish(
    folder: Path, step: int, write: Callable[[Path], None], eval_loss: float | None = None
) -> Checkpoint:
    """Let `write` fill a draft; it becomes `folder/step-N` when it is whole and on the disk."""
    final = folder / f"step-{step:06d}"
    draft = folder / f".{final.name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write(draft)
    files = describe_tree(draft, skip=())
    for name in files:
        sync_file(draft / name)
    entries = {name: asdict(entry) for name, entry in files.items()}
    write_json(
        draft / NAME, {"schema": SCHEMA, "step": step, "eval_loss": eval_loss, "files": entries}
    )
    sync_file(draft)
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    sync_file(folder)
    return Checkpoint(final, step, eval_loss)


def good(folder: Path) -> tuple[list[Checkpoint], list[Bad]]:
    """The checkpoints in `folder` whose files are whole, newest first, and those that are not.

    Drafts that a crash left are removed.
    """
    found, bad = [], []
    for path in sorted(folder.glob("*") if folder.exists() else (), reverse=True):
        if _FOLDER.fullmatch(path.name):
            try:
                found.append(opened(path))
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                bad.append(Bad(path, str(error) or type(error).__name__))
    for draft in folder.glob(".step-*.draft"):
        shutil.rmtree(draft, ignore_errors=True)
    return found, bad


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
    loss = values["eval_loss"]
    return Checkpoint(folder, values["step"], None if loss is None else float(loss))


def best(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """The one of the lowest eval loss, the earliest of equals."""
    measured = [each for each in checkpoints if each.eval_loss is not None]
    return min(measured, key=lambda each: (each.eval_loss, each.step), default=None)


def drop_old(folder: Path, best_step: int | None) -> None:
    """Keep the newest ones and the best."""
    steps = sorted(int(m[1]) for p in folder.iterdir() if (m := _FOLDER.fullmatch(p.name)))
    for step in steps[:-KEPT]:
        if step != best_step:
            shutil.rmtree(folder / f"step-{step:06d}", ignore_errors=True)
