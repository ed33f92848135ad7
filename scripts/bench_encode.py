"""Contender of scripts/bench_prepare.py: this package's encoder on all cores.

The same work as TRL's: questions and replies to ids and where the labels begin, in Arrow.
Timed from the first batch to the closed file; imports and starting the processes are apart.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any

STARTED = monotonic()

import numpy as np  # noqa: E402
import pyarrow  # noqa: E402
from bench_measure import Seen, keep, seen_of  # noqa: E402

from pipeline.chat import Encoder, Exchange, chat_format, unproven  # noqa: E402
from pipeline.data.write.writer import ArrowWriter  # noqa: E402

IMPORTED = monotonic()
STARTING = 300
"""Seconds that the processes have to get ready."""

Batch = tuple[list[Any], list[int]]
"""Ids of each example as int32 arrays, and where each one's labels begin."""


def begin(rows: Path, tokenizer: Path, backend: Any, ready: Any) -> None:
    """Make a worker process ready, as pipeline.data.work.pool does."""
    global _batches, _encoder, _ready  # noqa: PLW0603 - what a process's calls share
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _encoder = Encoder(tokenizer, chat_format("llama3.2-reasoning"), backend=backend)
    _batches = pyarrow.ipc.open_file(pyarrow.memory_map(str(rows)))
    _ready = ready


def meet() -> str:
    """Return once every worker process has come here: what encodes in this one."""
    _ready.wait(STARTING)
    return _encoder.backend


def encode(number: int) -> Batch:
    """Examples of one batch of the rows."""
    columns = _batches.get_batch(number).to_pydict()
    texts = zip(columns["question"], columns["reasoning"], columns["answer"], strict=True)
    examples = list(_encoder.examples([Exchange(None, *three) for three in texts]))
    if None in examples:
        raise ValueError(f"batch {number} holds a row that cannot be encoded")
    ids = [np.asarray(example.ids, "int32") for example in examples]
    return ids, [example.target_start for example in examples]


def write(pool: ProcessPoolExecutor, batches: int, path: Path) -> None:
    writer = ArrowWriter(path)
    for examples in pool.map(encode, range(batches)):
        for ids, target_start in zip(*examples, strict=True):
            writer.add(ids, target_start)
    writer.close()


def seen_in(path: Path, rows: Path) -> Seen:
    names = pyarrow.ipc.open_file(pyarrow.memory_map(str(rows))).read_all().column("id")
    return seen_of(path, names.to_pylist())


def run(options: argparse.Namespace) -> None:
    proven = monotonic()
    workers = len(os.sched_getaffinity(0))
    context = get_context("spawn")
    setup = (options.rows, options.tokenizer, options.backend, context.Barrier(workers))
    batches = pyarrow.ipc.open_file(pyarrow.memory_map(str(options.rows))).num_record_batches
    with ProcessPoolExecutor(workers, context, begin, setup) as pool:
        backends = {each.result() for each in [pool.submit(meet) for _ in range(workers)]}
        if backends != {options.backend}:
            raise SystemExit(f"the worker processes encode by {backends}")
        first = monotonic()
        write(pool, batches, options.out / "examples.arrow")
        last = monotonic()
    keep(
        options.out / "result.json",
        seen_in(options.out / "examples.arrow", options.rows),
        first,
        last,
        imports=IMPORTED - STARTED,
        proof=proven - IMPORTED,
        processes=first - proven,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    backends = ("tokenizers", "pieces", "tiktoken")
    parser.add_argument("--backend", choices=backends, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    options = parser.parse_args()
    if reason := unproven(options.tokenizer, options.backend):
        (options.out / "unproven.txt").write_text(reason, encoding="utf-8")
    else:
        run(options)


if __name__ == "__main__":
    main()
