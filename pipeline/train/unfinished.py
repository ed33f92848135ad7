"""A training under way: its folder beside the stages, and whether it can be gone on with."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ChangedInput, PipeError
from pipeline.recipe import leaves
from pipeline.run import Emit, Manifest, Note, Run
from pipeline.run.files import write_json
from pipeline.train import checkpoint
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.logs import append_line, read_lines, write_lines

FOLDER = ".train.work"
_PINS = "pins.json"
_SHOWN = 12
"""Differences listed before the rest is counted."""


@dataclass(frozen=True)
class Unfinished:
    """`.train.work` of a run."""

    folder: Path
    emit: Emit

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def newest(self) -> Checkpoint | None:
        """The checkpoint to go on from; each that is newer and not used is named."""
        found, bad = checkpoint.good(self.checkpoints)
        newest = found[0] if found else None
        for each in bad:
            # an older one may be half removed
            if newest is None or each.step > newest.step:
                text = f"Checkpoint {each.folder} is not used: {each.reason}."
                self.emit(Note(text, warning=True))
        if bad and newest is None:
            self.emit(Note("No checkpoint can be used: the training begins anew.", warning=True))
        return newest

    def resume(self) -> str | None:
        """The checkpoint to go on from, said; metrics and speeds begin where it ends."""
        newest = self.newest()
        step = newest.step if newest else 0
        speeds = [line for line in self.speeds() if line["step"] <= step]
        write_lines(self.folder / "speed.jsonl", speeds)
        metrics = read_lines(self.folder / "metrics.jsonl")
        write_lines(self.folder / "metrics.jsonl", [m for m in metrics if m["step"] <= step])
        shutil.rmtree(self.folder / "result", ignore_errors=True)
        if newest is None:
            return None
        self.emit(Note(f"Going on from the checkpoint of step {step}."))
        return str(newest.folder.resolve())

    def log(self, line: Mapping[str, Any], speed: Mapping[str, Any]) -> None:
        """For those who look while it runs; what is published comes from the checkpoints."""
        append_line(self.folder / "metrics.jsonl", line)
        if speed:
            append_line(self.folder / "speed.jsonl", speed)

    def speeds(self) -> list[dict[str, Any]]:
        """The speed of each step so far, as measured when it ran last."""
        return read_lines(self.folder / "speed.jsonl")

    def batch_size(self, asked: int) -> int:
        """Rows in a micro-batch: as asked, or what was left of it when memory ran out."""
        return min(asked, self._number("batch_size", asked))

    def keep_batch_size(self, rows: int) -> None:
        write_json(self.folder / "batch_size.json", rows)

    def global_batch(self, asked: int) -> int:
        """Rows in an optimizer step: as the training began, however many processes it has now."""
        if not (self.folder / "global_batch.json").exists():
            write_json(self.folder / "global_batch.json", asked)
        return self._number("global_batch", asked)

    def _number(self, name: str, default: int) -> int:
        path = self.folder / f"{name}.json"
        return int(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else default

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def unfinished(run: Run, plan: Manifest, emit: Emit, *, force: bool) -> Unfinished:
    """The run's training under way, begun where there is none.

    Raises ChangedInput, with every difference, where the one under way is another training.
    """
    work = Unfinished(run.root / FOLDER, emit)
    if force:
        work.remove()
    pins = work.folder / _PINS
    identity = _identity(plan)
    if not pins.exists():
        work.remove()
        work.folder.mkdir(parents=True)
        write_json(pins, {"work": identity, "versions": plan.versions})
        return work
    found = _read(pins)
    if found["work"] != identity:
        raise ChangedInput(
            f"{work.folder} holds a training of another recipe or other rows, not finished:\n"
            + "\n".join(_differences(found["work"], identity)),
            "Put them back to go on with it, or give it up: pipe train --force",
        )
    for line in _differences(found["versions"], dict(plan.versions)):
        emit(Note(f"Other versions than it was begun with:{line}. Last bits may differ.", True))
    return work


def has_ended(run: Run) -> bool:
    """Whether `train/` is whole and holds what the training in `.train.work` was to come to."""
    try:
        made = run.require("train", complete=False)
        pins = run.root / FOLDER / _PINS
        # without pins nothing was begun that could be gone on with
        return not pins.exists() or bool(_read(pins)["work"] == _identity(made))
    except PipeError:
        return False


def _identity(plan: Manifest) -> dict[str, Any]:
    """What decides the result, as JSON gives it back."""
    values = asdict(plan)
    kept = {key: values[key] for key in ("section", "inputs", "chat_format", "seed", "schema")}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"work": dict(found["work"]), "versions": dict(found["versions"])}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PipeError(
            f"{path} cannot be read: {error}", "Begin this training anew: pipe train --force"
        ) from None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for each value that is another now: `  train.learning_rate: 0.002, now 0.001`."""
    old, new = dict(leaves(_told(before))), dict(leaves(_told(now)))
    lines = [
        f"  {key.removeprefix('section.')}: {old.get(key, 'not there')}, "
        f"now {new.get(key, 'not there')}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]
    rest = len(lines) - _SHOWN
    return [*lines[:_SHOWN], f"  and {rest} more"] if rest > 0 else lines


def _told(values: Any) -> Any:
    """A file of a manifest by the first digits of its hash; all else as it is."""
    if not isinstance(values, Mapping):
        return values
    if "sha256" in values:
        return str(values["sha256"])[:12]
    return {key: _told(value) for key, value in values.items()}
