"""What engines have answered so far, on disk line by line, so that a killed eval goes on."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.run.files import write_json

FOLDER = ".eval.work"
"""In the run's folder; times are in it, so nothing of it is published as it is."""
_PINS = "pins.json"


@dataclass(frozen=True)
class Answer:
    """A reply as an engine gave it."""

    text: str
    thinking: str
    answer: str
    well_formed: bool
    stopped: bool
    tokens: int
    seconds: float
    """Since the reply before it, or since the engine was asked."""


@dataclass(frozen=True)
class Likelihood:
    """How likely an engine finds a text: the sum of its tokens' natural log-probabilities."""

    total: float
    tokens: int


Kind = TypeVar("Kind", Answer, Likelihood)


class Log(Generic[Kind]):
    """One line for each of `keys`, in this order.

    Engines are asked `leg` keys at a time, and what a reply is may depend, in its last bits, on
    those that it was computed with. So only whole legs are gone on from: the bytes are then those
    of an eval that was never stopped.
    """

    def __init__(self, path: Path, kind: type[Kind], keys: Sequence[str], leg: int) -> None:
        self._path, self._keys, self._leg = path, keys, leg
        self._kind: type[Kind] = kind
        self.found: list[Kind] = []
        """What is there, in the keys' order."""

    def load(self) -> int:
        """Read what is there, cut off what does not belong, and say how many lines are kept."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        values = self._whole(lines)
        if len(values) < len(self._keys):
            values = values[: len(values) - len(values) % self._leg]
        if lines:
            os.truncate(self._path, sum(map(len, lines[: len(values)])))
        self.found = values
        return len(values)

    def append(self, value: Kind) -> None:
        key = self._keys[len(self.found)]
        line = json.dumps({"key": key, **asdict(value)}, ensure_ascii=False)
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(line + "\n")
        self.found.append(value)

    def _whole(self, lines: list[bytes]) -> list[Kind]:
        """Up to the first line that is torn or another key's."""
        values: list[Kind] = []
        for key, line in zip(self._keys, lines, strict=False):
            value = self._read(key, line)
            if value is None:
                break
            values.append(value)
        return values

    def _read(self, key: str, line: bytes) -> Kind | None:
        try:
            fields = json.loads(line) if line.endswith(b"\n") else {}
            return self._kind(**fields) if fields.pop("key", None) == key else None
        except (ValueError, TypeError, AttributeError):
            return None


class Kept:
    """The folder of what was asked, one part for each task and way of asking it."""

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER

    def part(self, name: str, key: str) -> Path:
        """Where the answers to a task lie, as asked; `key` is a hash of all that they hang on."""
        return self.folder / f"{name}-{key[:16]}"

    def pins(self) -> dict[str, str]:
        return dict(_json(self.folder / _PINS))

    def keep_pins(self, pins: dict[str, str]) -> None:
        write_json(self.folder / _PINS, pins)

    def clear(self, but: Sequence[Path] = ()) -> None:
        """Remove what was kept, but not the parts named."""
        if not but:
            return shutil.rmtree(self.folder, ignore_errors=True)
        for path in self.folder.iterdir():
            if path.is_dir() and path not in but:
                shutil.rmtree(path)


def read_facts(path: Path) -> dict[str, Any]:
    """What an engine said of itself when it was last open: load_s, memory_bytes, first_token_s."""
    return dict(_json(path))


def write_facts(path: Path, facts: dict[str, Any]) -> None:
    write_json(path, facts)


def _json(path: Path) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
