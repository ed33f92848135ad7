"""Rows, recipes and runs for the tests of prepare."""

import json
from collections import Counter
from pathlib import Path

from pipeline.data import prepare
from pipeline.data.prepare import PARTS
from pipeline.recipe import Recipe
from pipeline.run import Run, describe_tree, silent
from pipeline.run.rows import read_jsonl

ALL = {"eval_share": 0, "test_share": 0, "no_thinking_share": 0}
"""Every row is a training row, as it came."""
REPLY = "<think>\n{n} and 1 is {m}.\n</think>\n\nIt is {m}."


def record(number, **changes):
    """A row in the columns of R1-Distill-SFT v0."""
    values = {
        "id": f"r{number}",
        "problem": f"What is {number} + 1?",
        "reannotated_assistant_content": REPLY.format(n=number, m=number + 1),
        "source": "sums",
        "solution": str(number + 1),
    }
    return values | changes


def write_rows(path, records):
    """Records, or lines as they are, as jsonl."""
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in records]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def general_record(number, **changes):
    """A general row in prepare's own columns; no two questions are alike."""
    values = {
        "id": f"g{number}",
        "question": f"Name thing {number}, colour {number * 7}, please.",
        "reasoning": None,
        "answer": f"Thing {number}.",
    }
    return values | changes


def recipe_of(base, *paths, max_seq_length=256, **data):
    """A recipe on these files; a source may also be a dictionary.

    Its general rows, unless given, are two short ones beside the base.
    """
    if "general" not in data:
        few = write_rows(Path(base).parent / "few.jsonl", [general_record(n) for n in (1, 2)])
        data["general"] = {"dataset": str(few)}
    sources = [path if isinstance(path, dict) else {"dataset": str(path)} for path in paths]
    return Recipe.model_validate(
        {
            "name": "t",
            "model": {"base": str(base), "max_seq_length": max_seq_length},
            "data": {"sources": sources, **data},
        }
    )


def contents(run):
    """sha256 by file of all that is published and the same bytes for the same work."""
    files = describe_tree(run.root, ["data/timing.json"])
    return {name: each.sha256 for name, each in files.items() if not name.startswith(PARTS)}


def prepared(folder, recipe, emit=silent, **options):
    """The run that prepare left in `folder`."""
    run = Run(folder)
    prepare(recipe, run, emit, **options)
    return run


def rows_of(run, split):
    return list(read_jsonl(run.folder("data") / f"{split}.jsonl"))


def reasons(run):
    """How many rejects there are of each reason."""
    return Counter(row["reason"] for row in rows_of(run, "rejects"))


def stats_of(run):
    return json.loads((run.folder("data") / "stats.json").read_text())


def examples(run, split):
    from datasets import Dataset

    return Dataset.from_file(str(run.folder("data") / "encoded" / f"{split}.arrow"))
