"""Is a training that goes on from a checkpoint the same one? Three runs of the stage's own worker.

python scripts/gpu/resume.py --base BASE --rows ENCODED --out FILE [--deterministic]

`whole` runs through, `again` too, `resumed` goes on from the middle checkpoint of `whole` in a new
process. Losses, bytes of the weights, and seconds of a step go to the file.
"""

import argparse
import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from contender import job_of


def run(job: Any, folder: Path) -> dict[str, Any]:
    """What one start of the worker measured and left in `folder`."""
    from pipeline.train.launch import Launch, open_child

    folder.mkdir(parents=True, exist_ok=True)
    job = replace(job, folder=str(folder))
    seconds, result = [], {}
    with open_child(job.write(folder / "job.json"), job.train, Launch()) as child:
        for message in child.stream("train"):
            if "speed" in message:
                seconds.append(message["speed"]["seconds"])
            result = message.get("result", result)
    digest = hashlib.sha256()
    for path in sorted((folder / "result").rglob("*.safetensors")):
        digest.update(path.read_bytes())
    losses = [line["loss"] for line in result["trace"]["metrics"] if "loss" in line]
    return {
        "losses": losses,
        "step_seconds_median": round(median(seconds[2:] or seconds), 4),
        "weights_sha256": digest.hexdigest(),
    }


def compared(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    pairs = list(zip(one["losses"], other["losses"], strict=True))
    return {
        "same_weights": one["weights_sha256"] == other["weights_sha256"],
        "same_losses": one["losses"] == other["losses"],
        "largest_loss_difference": max(abs(a - b) for a, b in pairs),
    }


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="qlora")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--batching", default="shuffled")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--deterministic", action="store_true")
    return parser.parse_args()


def main() -> None:
    sys.path.insert(0, str(Path.cwd()))
    options = options_of()
    job = job_of(options)
    half = options.steps // 2
    job = replace(job, train=job.train.model_copy(update={"save_every": half}))
    folder = Path(job.folder)
    shutil.rmtree(folder)
    whole = run(job, folder / "whole")
    checkpoint = folder / "whole" / "checkpoints" / f"step-{half:06d}"
    resumed = run(replace(job, resume=str(checkpoint)), folder / "resumed")
    again = run(job, folder / "again")
    found = {
        "deterministic": options.deterministic,
        "device": options.device,
        "batching": options.batching,
        "resumed": compared(whole, resumed),
        "again": compared(whole, again),
        "runs": {"whole": whole, "resumed": resumed, "again": again},
    }
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    told = {key: found[key] for key in ("deterministic", "batching", "resumed", "again")}
    print("RESULT resume", json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
