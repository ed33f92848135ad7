"""The memory that `pipe plan` foresees beside the peak of real trainings, on this processor.

    python -m scripts.measure_plan --out benchmarks/plan.json

Random weights of Llama-3.2-1B's shape and rows of random ids, two steps by `pipe train`'s own
worker for each point. Memory is the worker's resident set above what it held before it opened the
base: the bare imports. Needs 12 GB of RAM, 3 GB of disk and a minute or two a point.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.child import Child
from pipeline.recipe.training import Lora, Train
from pipeline.study.plan import Memory, memory_of, shape_of
from pipeline.study.plan.memory import Method, Setting
from pipeline.train.job import Job
from pipeline.train.launch import Launch, open_child
from scripts.record_run import processor

ROOT = Path(__file__).parents[1]
EVERY = 0.02
"""Seconds between two looks at the memory."""
STEPS = 2
SEED = 3407
RANK = 16


@dataclass(frozen=True)
class Point:
    """One training that is measured."""

    method: Method
    batch_size: int
    max_seq_length: int
    gradient_checkpointing: bool = False
    evaluate: bool = False
    """Also measure the loss on a micro-batch of other rows, after the last step."""

    @property
    def train(self) -> Train:
        return Train(
            method=self.method,
            device="cpu",
            precision="fp32",
            optimizer="adamw_torch",
            batch_size=self.batch_size,
            gradient_accumulation=1,
            max_steps=STEPS,
            warmup_steps=0,
            gradient_checkpointing=self.gradient_checkpointing,
            lora=Lora(r=RANK, alpha=RANK),
        )

    @property
    def setting(self) -> Setting:
        train = self.train
        return Setting(
            method=self.method,
            device="cpu",
            precision="fp32",
            batch_size=self.batch_size,
            max_seq_length=self.max_seq_length,
            gradient_checkpointing=self.gradient_checkpointing,
            optimizer=train.optimizer,
            lora=train.lora,
        )


POINTS = (
    Point("lora", 1, 128),
    Point("lora", 1, 512),
    Point("qlora", 1, 128),
    Point("qlora", 1, 512),
    Point("qlora", 1, 512, gradient_checkpointing=True, evaluate=True),
)


@dataclass
class Looks:
    """What a process held, look by look; `bare` is the last before it opened the base."""

    process: int
    base: Path
    held: list[tuple[float, int]] = field(default_factory=list)
    bare: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Looks":
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def peak(self, begin: float, end: float) -> int:
        """The most bytes between two moments."""
        return max((size for at, size in self.held if begin <= at <= end), default=0)

    def _look(self) -> None:
        looks, opened = 0, False
        while not self._over.wait(EVERY):
            try:
                held = resident(self.process)
                # maps are long: reading them as often would slow the process down
                opened = opened or (looks % 10 == 0 and self._opened())
            except (OSError, IndexError):  # it has ended
                return
            self.held.append((monotonic(), held))
            looks += 1
            if looks % 10 == 1 and not opened:
                self.bare = held

    def _opened(self) -> bool:
        return (
            str(self.base / "model.safetensors") in Path(f"/proc/{self.process}/maps").read_text()
        )


def resident(process: int) -> int:
    """Resident bytes: private memory and mapped files that were read."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measured(base: Path, point: Point, folder: Path) -> dict[str, Any]:
    """Train a point in `folder`; bytes above the bare imports, measured and foreseen."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    job = _job(base, config, point, folder)
    job_file = job.write(folder / "job.json")
    with open_child(job_file, point.train, Launch()) as child, Looks(child.pid, base) as looks:
        result = _trained(child)
        ended = monotonic()
    begun = ended - result["seconds"]["train"]
    loading = looks.peak(0, begun) - looks.bare
    step = looks.peak(begun, ended) - looks.bare
    memory = memory_of(shape_of(config), point.setting)
    foreseen = foreseen_bytes(memory, point)
    peak = max(loading, step)
    return {
        "method": point.method,
        "batch_size": point.batch_size,
        "max_seq_length": point.max_seq_length,
        "gradient_checkpointing": point.gradient_checkpointing,
        "evaluate": point.evaluate,
        "bare_bytes": looks.bare,
        "measured_bytes": {"loading": loading, "step": step, "peak": peak},
        "foreseen_bytes": foreseen,
        "error": round(foreseen["peak"] / peak - 1, 4),
        "step_error": round(foreseen["step"] / step - 1, 4),
        "seconds": round(result["seconds"]["train"], 1),
    }


def foreseen_bytes(memory: Memory, point: Point) -> dict[str, int]:
    """The same moments by the formulas, above the bare imports; `step` is all after loading."""
    step = memory.step - memory.overhead
    after = max(step, memory.evaluating) if point.evaluate else step
    return {"loading": memory.loading, "step": after, "peak": max(memory.loading, after)}


def _trained(child: Child) -> dict[str, Any]:
    *_, last = child.stream("train")
    result: dict[str, Any] = last["result"]
    if result["status"] != "done":
        raise RuntimeError(f"the training ended as {result['status']}")
    return result


def _job(base: Path, config: dict[str, Any], point: Point, folder: Path) -> Job:
    rows = point.batch_size * STEPS
    encoded = _write_rows(folder, rows, point)
    return Job(
        base=str(base),
        base_name=base.name,
        base_revision=None,
        config=config,
        max_seq_length=point.max_seq_length,
        train=point.train,
        seed=SEED,
        pad_id=config["pad_token_id"],
        end_ids=(config["eos_token_id"],),
        chat_template="",
        rows=str(folder / "train.jsonl"),
        encoded=encoded,
        samples=[],
        folder=str(folder),
        batch_size=point.batch_size,
        global_batch=point.batch_size,
    )


def _write_rows(folder: Path, rows: int, point: Point) -> dict[str, str]:
    """Rows of random ids, all of one length, and a micro-batch to evaluate where that is asked."""
    draw = np.random.default_rng(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    ids = [draw.integers(0, 600, point.max_seq_length, dtype=np.int32) for _ in range(rows)]
    columns = {"input_ids": pa.array(ids, pa.list_(pa.int32())), "target_start": [1] * rows}
    table = pa.table(columns)
    (folder / "train.jsonl").write_text("{}\n" * rows, encoding="utf-8")
    paths, evaluated = {}, point.batch_size if point.evaluate else 0
    for name, part in (("train", table), ("eval", table.slice(0, evaluated))):
        paths[name] = str(folder / f"{name}.arrow")
        with pa.ipc.new_stream(paths[name], table.schema) as file:
            file.write_table(part)
    return paths


def make_base(folder: Path, *options: str) -> Path:
    """Random weights by scripts/gpu/make_base.py, in a process of their own."""
    if not list(folder.glob("*.safetensors")):
        script = [sys.executable, str(ROOT / "scripts" / "gpu" / "make_base.py"), str(folder)]
        subprocess.run([*script, *options], check=True, stdout=subprocess.DEVNULL)
    return folder


def results(base: Path, points: Sequence[Point], folder: Path) -> dict[str, Any]:
    found = []
    for number, point in enumerate(points):
        found.append(measured(base, point, folder / str(number)))
        print(json.dumps(found[-1]), flush=True)
    names = ("torch", "transformers", "trl", "peft", "bitsandbytes", "unsloth")
    return {
        "date": date.today().isoformat(),
        "machine": {"processor": processor(), "system": platform.system()},
        "versions": {name: version(name) for name in names},
        "shape": "random weights of Llama-3.2-1B's shape, rank 16 on all projections",
        "points": found,
        "largest_error": max(abs(each["error"]) for each in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="Where the figures go as JSON.")
    parser.add_argument("--base", type=Path, help="Where the base lies, or is made and stays.")
    parser.add_argument("--points", type=int, nargs="*", help="Numbers of points; all by default.")
    options = parser.parse_args()
    points = [POINTS[number] for number in options.points or range(len(POINTS))]
    with tempfile.TemporaryDirectory() as folder:
        base = make_base(options.base or Path(folder) / "base", "--shape", "1b")
        found = results(base, points, Path(folder))
    text = json.dumps(found, indent=2, sort_keys=True) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
