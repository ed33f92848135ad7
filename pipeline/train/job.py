"""What the training processes are told: one file, which each of them reads."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.recipe.training import Train
from pipeline.run.files import write_json

NAME = "job.json"


@dataclass(frozen=True)
class Job:
    """A training as its processes see it; paths are absolute."""

    base: str
    """Folder of the 16-bit base."""
    base_name: str
    base_revision: str | None
    config: dict[str, Any]
    """The base's config.json."""
    max_seq_length: int
    train: Train
    seed: int
    pad_id: int
    end_ids: tuple[int, ...]
    """Ids that end a reply."""
    chat_template: str
    rows: str
    """train.jsonl, whose line k is row k of the encoded rows."""
    encoded: dict[str, str]
    """Arrow files: `train`, `eval`, and `general` where there is one."""
    samples: list[dict[str, Any]]
    """Held-out questions answered aloud: {"question", "prompt_ids"}."""
    folder: str
    """Where checkpoints and results go."""
    batch_size: int
    """Rows in a micro-batch of one process; less than the recipe's after memory ran out."""
    global_batch: int
    """Rows in an optimizer step, over all processes."""
    resume: str | None = None
    """The checkpoint to go on from."""

    def write(self, path: Path) -> Path:
        write_json(path, {**asdict(self), "train": self.train.model_dump(mode="json")})
        return path

    @classmethod
    def read(cls, path: Path) -> "Job":
        values = json.loads(path.read_text(encoding="utf-8"))
        train = Train.model_validate(values.pop("train"))
        return cls(**{**values, "train": train, "end_ids": tuple(values["end_ids"])})
