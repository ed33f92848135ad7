"""How much memory prepare takes as its rows grow: flat, but for the index that finds duplicates.

    python scripts/bench_memory.py --out benchmarks/prepare_memory.json

Prepares 10,000 and 200,000 short rows, each in a process tree of its own, with every comparison
between rows on; math-verify, which looks at one row at a time, is off. A part's rows are read,
worked on and written alike in both, so what the larger takes more is what a row costs.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

from bench_measure import watch
from record_run import processor

SIZES = (10_000, 200_000)
BASE = Path(__file__).parents[1] / "data" / "tiny-llama"


def write_rows(path: Path, count: int) -> None:
    """Rows of some 600 characters, no two questions alike."""
    draw = Random(3407)
    words = ["".join(draw.choices("abcdefghilmnoprstu", k=2 + n % 7)) for n in range(2000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            question = f"Row {number}: {' '.join(draw.choices(words, k=25))}?"
            reasoning = " ".join(draw.choices(words, k=60))
            reply = f"<think>\n{reasoning}\n</think>\n\nIt is {number}."
            record = {
                "id": f"r{number}",
                "problem": question,
                "reannotated_assistant_content": reply,
                "source": "made up",
                "solution": None,
            }
            file.write(json.dumps(record) + "\n")


def measured(folder: Path, count: int) -> dict[str, Any]:
    """Peak memory of the whole command, in MiB, and its seconds."""
    write_rows(folder / "rows.jsonl", count)
    recipe = {
        "name": "memory",
        "model": {"base": str(BASE), "max_seq_length": 4096},
        "data": {
            "sources": [{"dataset": str(folder / "rows.jsonl")}],
            "filters": {"verify": False},
        },
    }
    (folder / "pipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("pipe")), "prepare"]
    watched = watch(command, folder, os.environ)
    stats = json.loads((folder / "runs/memory/data/stats.json").read_text(encoding="utf-8"))
    return {
        "rows": count,
        "kept": sum(stats["rows"].values()) - stats["rows"]["rejects"],
        "seconds": round(watched.end - watched.begin, 1),
        "peak_mib": watched.peak_mib(watched.begin, watched.end),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="Where the figures go as JSON.")
    options = parser.parse_args()
    found = []
    for count in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measured(Path(folder), count))
            print(found[-1], flush=True)
    small, large = found
    more = (large["peak_mib"] - small["peak_mib"]) * 2**20 / (large["rows"] - small["rows"])
    result = {
        "date": date.today().isoformat(),
        "machine": {"processor": processor(), "system": platform.system()},
        "runs": found,
        "bytes_a_row": round(more),
    }
    text = json.dumps(result, indent=2, sort_keys=True) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
