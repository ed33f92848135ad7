"""Encoded rows of random ids for a base, the same on every run: what speed is measured on.

Their lengths are those of scripts/bench_rows.py, R1's; longer ones than asked are drawn again, as
`pipe prepare` drops them.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_rows import MEDIAN, SEED, SHORTEST, SIGMA

QUESTION = 120
"""Mean tokens of a question."""


def write_rows(base: Path, folder: Path, rows: int, longest: int) -> None:
    """train.arrow with `rows` rows of at most `longest` tokens, and an empty eval.arrow."""
    draw = np.random.default_rng(SEED)
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    words = min(token for token in tokenizer.get_added_tokens_decoder())
    before, between, end = (
        np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int32)
        for text in (
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            "<|eot_id|>",
        )
    )
    ids, starts = [], []
    for length in _lengths(draw, rows, longest):
        question = draw.integers(0, words, draw.poisson(QUESTION), dtype=np.int32)
        prompt = np.concatenate([before, question, between])
        reply = draw.integers(0, words, length - len(prompt) - len(end), dtype=np.int32)
        ids.append(np.concatenate([prompt, reply, end]))
        starts.append(len(prompt))
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"input_ids": pa.array(ids, pa.list_(pa.int32())), "target_start": starts}
    table = pa.table(columns)
    for name, part in (("train", table), ("eval", table.slice(0, 0))):
        with pa.ipc.new_stream(str(folder / f"{name}.arrow"), table.schema) as file:
            file.write_table(part)


def _lengths(draw: np.random.Generator, rows: int, longest: int) -> list[int]:
    found: list[int] = []
    while len(found) < rows:
        drawn = MEDIAN * draw.lognormal(0.0, SIGMA, rows)
        found += [int(size) for size in drawn if SHORTEST <= size <= longest]
    return found[:rows]
