"""The base's answers, which runs that train the same base otherwise need not ask it for again."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.evaluate.ask import Asked
from pipeline.run import Entry
from pipeline.run.files import sha256_of_json

BASE = "base"


@dataclass(frozen=True)
class Shared:
    """A folder of answers, one part for each task and way of asking it; None shares nothing.

    What is taken is a copy: an eval that goes on cuts and continues its own.
    """

    folder: Path | None
    parts: Sequence[tuple[Asked, str]]
    """A task with the hash of all that the base's answers to it hang on."""

    def take(self) -> None:
        """Lay the base's answers where this eval keeps its own, where it has none yet."""
        for asked, part in self._places():
            there = any(asked.folder.glob(f"{BASE}.*"))
            if part.is_dir() and not there:
                asked.folder.mkdir(parents=True, exist_ok=True)
                for path in sorted(part.iterdir()):
                    shutil.copyfile(path, asked.folder / path.name)

    def give(self) -> None:
        """Keep the base's answers for the next run, whole or not at all."""
        for asked, part in self._places():
            found = sorted(asked.folder.glob(f"{BASE}.*"))
            if found and not part.exists():
                draft = part.with_name(f".{part.name}.draft")
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir(parents=True)
                for path in found:
                    shutil.copyfile(path, draft / path.name)
                draft.rename(part)

    def _places(self) -> list[tuple[Asked, Path]]:
        if self.folder is None:
            return []
        return [(asked, self.folder / f"{asked.name}-{key[:16]}") for asked, key in self.parts]


def base_key(asked: Asked, inputs: Mapping[str, Entry], opened: Mapping[str, Any]) -> str:
    """A hash of all that the base's answers to a task hang on, whatever is trained on it.

    Of `inputs` those of the base count; `opened` says with what it is opened. The questions are
    hashed themselves: other training rows leave them as they are.
    """
    greedy = asked.decoding.temperature == 0
    base = {name: asdict(entry) for name, entry in inputs.items() if name.startswith("base/")}
    rows = [[item.id, dict(item.row)] for item in asked.items]
    # greedy replies are drawn by no seed
    decoding = asdict(replace(asked.decoding, seed=0) if greedy else asked.decoding)
    how = [decoding, asked.samples, asked.leg, sorted(asked.own)]
    words = [base, rows, how, dict(opened)]
    return sha256_of_json(words, default=str)
