"""A run that was trained in full, without training: the base's weights, each changed a little."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base import Base, open_base
from pipeline.plans import planned
from pipeline.recipe import Recipe
from pipeline.run import Run

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
Bits = NDArray[np.uint16]


def nudged(bits: Bits) -> Bits:
    """bf16 weights, each a hundredth larger or smaller, by a fixed seed."""
    values = (bits.astype(np.uint32) << 16).view(np.float32)
    signs = np.random.default_rng(bits.size).choice([-1, 1], bits.size)
    changed = (values * (1 + 0.01 * signs)).astype(np.float32)
    return ((changed.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)


def write_model(base: Base, folder: Path, change: Callable[[Bits], Bits] = nudged) -> Base:
    """A complete model folder of the base's shape, every tensor of it changed."""
    folder.mkdir(parents=True)
    for name in ("config.json", "generation_config.json", *TOKENIZER):
        if (base.folder / name).exists():
            shutil.copyfile(base.folder / name, folder / name)
    (shard,) = base.shards()
    data = bytearray(shard.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    for name, about in json.loads(data[8:start]).items():
        if name != "__metadata__":
            assert about["dtype"] == "BF16"
            first, last = (start + offset for offset in about["data_offsets"])
            data[first:last] = change(np.frombuffer(data[first:last], np.uint16)).tobytes()
    (folder / shard.name).write_bytes(data)
    return Base(base.name, folder, base.revision)


def run_in_full(root: Path, recipe: Recipe) -> Run:
    """`data` and `train` are done, the latter with a model/ and no adapter/."""
    run, base = Run(root), open_base(recipe.model)
    source = {"dataset": "rows.jsonl", "rows": 7}
    with run.publish("data") as draft:
        facts = {"base": {"name": base.name, "revision": None}, "sources": [source]}
        row = {"question": "2 + 3?", "reasoning": "Two and three.", "answer": "5", "reference": "5"}
        (draft.folder / "test.jsonl").write_text(json.dumps(row) + "\n")
        draft.manifest = replace(planned("data", recipe, run), facts=facts)
    with run.publish("train") as draft:
        write_model(base, draft.folder / "model")
        inputs = base.entries() | run.input_entry("data")
        plan = planned("train", recipe, run)
        draft.manifest = replace(plan, inputs=inputs, facts={"method": "full"})
    return run
