"""manifest.json: what a stage read, what it wrote, and what did the work."""

import importlib.metadata
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ChangedInput
from pipeline.run.files import sha256_of, write_json

Stage = Literal["data", "train", "export", "serve", "check", "eval"]
NAME = "manifest.json"
TIMING = "timing.json"
UNHASHED = (NAME, TIMING, "training_log.json", "training_log.txt", "speed.json", "speed.jsonl")
"""Files that hold times, so that everything else is the same bytes for the same work."""
SCHEMA = 1
_SETTLED_NS = 2_000_000_000
"""Age of a file's last change from which on another one would show: FAT's clock ticks in 2 s."""


@dataclass(frozen=True)
class Entry:
    """One file: hex sha256 and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """Equal work gives equal manifests: times are kept in timing.json."""

    stage: Stage
    section: Mapping[str, Any]
    """The part of the recipe that the stage obeyed."""
    inputs: Mapping[str, Entry]
    outputs: Mapping[str, Entry] = field(default_factory=dict)
    """Path relative to the stage's folder -> file."""
    chat_format: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What really ran, where that is more than the recipe says."""
    schema: int = SCHEMA

    def same_work(self, other: "Manifest") -> bool:
        """True when both describe the same inputs, recipe section, format and seed."""
        return self.follows(other) and other.follows(self)

    def follows(self, plan: "Manifest") -> bool:
        """True where all that `plan` says is so here: it may name fewer inputs and less to obey."""
        mine, asked = ((m.schema, m.stage, m.chat_format, m.seed) for m in (self, plan))
        section, words = _plain(self.section), _plain(plan.section)
        return (
            mine == asked
            and section.items() >= words.items()
            and self.inputs.items() >= plan.inputs.items()
        )

    def check_inputs(self, entries: Mapping[str, Entry], cure: str) -> None:
        """Raises ChangedInput for a file that this stage read and that is another one now."""
        for name, entry in entries.items():
            if name in self.inputs and self.inputs[name] != entry:
                raise ChangedInput(f"{name} is not the file that {self.stage} read.", cure)

    def write(self, folder: Path) -> None:
        write_json(folder / NAME, asdict(self))


def read_manifest(folder: Path) -> Manifest | None:
    """The stage's manifest, or None where the stage has not finished.

    Raises ChangedInput when the file is there and not a manifest of this schema.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        for key in ("inputs", "outputs"):
            values[key] = {name: Entry(**entry) for name, entry in values[key].items()}
        manifest = Manifest(**values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ChangedInput(f"{path} is no manifest: {error}", "Remake it with --force.") from None
    if manifest.schema != SCHEMA:
        raise ChangedInput(
            f"{path} has schema {manifest.schema}; this pipe writes {SCHEMA}.", "Use --force."
        )
    return manifest


def describe(path: Path) -> Entry:
    """Hash one file; a file that was hashed in this process and not written since, not again.

    The disk's clock tells whether it was. That clock may stand still between two writes: so a file
    that was written a moment ago is always hashed (as git does: "racy git").
    """
    stat = path.stat()
    key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if key in _hashed:
        return _hashed[key]
    settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS
    found = Entry(sha256_of(path), stat.st_size)
    if settled:
        _hashed[key] = found
    return found


def describe_tree(folder: Path, skip: Iterable[str] = UNHASHED) -> dict[str, Entry]:
    """Every file under `folder` by its relative path, sorted."""
    omitted = set(skip)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    relative = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: describe(path) for name, path in relative.items() if name not in omitted}


def versions_of(*distributions: str) -> dict[str, str]:
    """Installed versions of what did the work."""
    return {name: importlib.metadata.version(name) for name in distributions}


_hashed: dict[tuple[int, ...], Entry] = {}
"""What was hashed in this process: by the file's device, inode, size, and times in ns."""


def _plain(value: Any) -> Any:
    """As JSON would give it back, so that a fresh section equals a stored one."""
    return json.loads(json.dumps(value, sort_keys=True))
