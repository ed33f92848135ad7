"""Training rows as the model sees them, read back from the encoded examples."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pipeline.chat import Encoder
from pipeline.run import Run
from pipeline.run.rows import read_jsonl


@dataclass(frozen=True)
class Shown:
    """One example, control tokens spelled out."""

    id: str
    source: str
    prompt: str
    """What the model is given: nothing of it is learned."""
    target: str
    """What it learns to say, its end of turn included."""
    tokens: int
    supervised: int


def shown(run: Run, encoder: Encoder, count: int) -> Iterator[Shown]:
    """The first `count` training rows, from the ids that training will read."""
    from datasets import Dataset

    folder = run.folder("data")
    examples = Dataset.from_file(str(folder / "encoded" / "train.arrow"))
    rows = read_jsonl(folder / "train.jsonl")
    for row, example in zip(islice(rows, count), examples, strict=False):
        ids, start = example["input_ids"], example["target_start"]
        yield Shown(
            id=row["id"],
            source=row["source"],
            prompt=encoder.text_of(ids[:start]),
            target=encoder.text_of(ids[start:]),
            tokens=len(ids),
            supervised=len(ids) - start,
        )
