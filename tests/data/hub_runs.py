"""Datasets for a loopback hub, and prepares that ask it from a process of their own."""

import json
import os
import subprocess
import sys

from tests.support.tokenizer import write_base

NAME = "ServiceNow-AI/R1-Distill-SFT"
LINES, GATED = "some/lines", "some/gated"
CARD = """---
configs:
- config_name: v0
  data_files: [{split: train, path: v0/*.parquet}]
- config_name: v1
  data_files: [{split: train, path: v1/*.parquet}]
---
"""
REPLY = "<think>\nOne more.\n</think>\n\nIt is {}."

# huggingface_hub reads HF_ENDPOINT when it is imported, so every hub gets its own process
DRIVER = """
import json, sys
from pathlib import Path
from pipeline.base import open_base
from pipeline.data import prepare
from pipeline.errors import PipeError
from pipeline.recipe import Recipe
from pipeline.data.read import chunks, hub
from pipeline.data.work import pool
from pipeline.run import Note, Run

chunks.CHUNK_ROWS = hub.CHUNK_ROWS = 100
pool.ALONE = 10**6
do = pool.Desk.do


def stop_after(parts):
    done = []

    def interrupted(desk, job):
        done.append(job)
        if parts and len(done) > parts:
            raise KeyboardInterrupt
        return do(desk, job)

    pool.Desk.do = interrupted


for job in json.load(sys.stdin):
    if "write" in job:
        Path(job["write"]).write_text(job["text"])
        continue
    recipe = Recipe.model_validate(job["recipe"])
    try:
        if job.get("base"):
            base = open_base(recipe.model)
            answer = [base.revision, sorted(path.name for path in base.folder.iterdir())]
        else:
            stop_after(job.get("parts"))
            notes = []
            made = prepare(recipe, Run(Path(job["run"])), notes.append, force=job["force"])
            answer = {"facts": made.facts, "counts": made.counts, "inputs": list(made.inputs)}
            answer["notes"] = [note.text for note in notes if isinstance(note, Note)]
    except PipeError as error:
        answer = [error.message, error.hint]
    except KeyboardInterrupt:
        answer = "interrupted"
    print(json.dumps(answer))
"""


def write_dataset(folder):
    import pyarrow as pa
    from pyarrow import parquet

    (folder / "v0").mkdir(parents=True)
    (folder / "v1").mkdir()
    (folder / "README.md").write_text(CARD)
    v0 = [
        {"id": f"a{n}", "problem": f"{n} + 1?", "reannotated_assistant_content": REPLY.format(n)}
        for n in range(40)
    ]
    parquet.write_table(pa.Table.from_pylist(v0), folder / "v0" / "train-0.parquet")
    before = [{"role": "user", "content": "before R1"}]
    v1 = [
        {
            "id": n,
            "reannotated_messages": [
                {"role": "user", "content": f"{n} + 1?"},
                {"role": "assistant", "content": REPLY.format(n)},
            ],
            "messages": before,
        }
        for n in range(30)
    ]
    parquet.write_table(pa.Table.from_pylist(v1), folder / "v1" / "train-0.parquet")
    return folder


def write_large(folder, group=100):
    """8 files of 1,000 rows in row groups, about 10 MB that does not compress."""
    import random

    import pyarrow as pa
    from pyarrow import parquet

    folder.mkdir()
    letters = random.Random(1)
    for shard in range(8):
        rows = [
            {
                "problem": f"{shard}:{n} + 1? {letters.randbytes(600).hex()}",
                "reannotated_assistant_content": REPLY.format(n),
            }
            for n in range(1000)
        ]
        table = pa.Table.from_pylist(rows)
        parquet.write_table(table, folder / f"train-{shard}.parquet", row_group_size=group)
    return folder


def write_lines(folder):
    folder.mkdir()
    line = {"id": None, "problem": "Why?", "reannotated_assistant_content": REPLY.format(2)}
    (folder / "train.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def job(tmp_path, *, run="run", force=False, base=False, model=None, parts=None, **source):
    """A prepare in the driver; it is interrupted after `parts` parts."""
    name = model or str(write_base(tmp_path / "base"))
    source = {"dataset": NAME} | source
    data = {"sources": [source], "eval_share": 0, "test_share": 0}
    recipe = {"name": "t", "model": {"base": name, "max_seq_length": 4096}, "data": data}
    run = str(tmp_path / run)
    return {"recipe": recipe, "run": run, "force": force, "base": base, "parts": parts}


def ask(tmp_path, url, *jobs, **environment):
    """The driver's answer to each job, from one process whose hub is at `url`."""
    kept = {k: v for k, v in os.environ.items() if "TOKEN" not in k and "proxy" not in k.lower()}
    hub = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "USE_TORCH": "0"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(jobs),
        env=kept | hub | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
