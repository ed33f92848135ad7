"""Write `data/samples/general-tiny.jsonl`: what the tiny base can do, and tuning may undo.

The questions are of the kinds that the tiny base was pretrained on and does well: sums, repeating
sentences, listing numbers, writing a story as a sum, and stories with one change. No row holds the
numbers and operations of a test row. Same seed, same bytes. `general.jsonl` beside it is written by
hand.

    python scripts/make_general.py --out data/samples
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

from make_samples import held_out_keys
from tiny_corpus import Corpus, Turn

SEED = 21
ROWS = 660
"""64 to hold apart, and beside them a fifth of the demo's training rows."""


def turns(seed: int = SEED, count: int = ROWS) -> list[tuple[str, Turn]]:
    """Kind and (question, answer); every kind as often as the others, no question twice."""
    corpus = Corpus(random.Random(seed), held_out_keys())
    kinds: dict[str, Callable[[], Turn]] = {
        "sum": corpus.sum_turn,
        "repeat": corpus.copy_story_turn,
        "list numbers": corpus.list_numbers_turn,
        "write as a sum": corpus.as_sum_turn,
        "one change": lambda: _problem(corpus),
    }
    found: dict[str, tuple[str, Turn]] = {}
    while len(found) < count:
        kind = tuple(kinds)[len(found) % len(kinds)]
        turn = kinds[kind]()
        found.setdefault(turn[0], (kind, turn))
    return list(found.values())


def _problem(corpus: Corpus) -> Turn:
    story = corpus.story((1, 0, 0))
    return story.problem(), story.answer()


def to_line(number: int, kind: str, turn: Turn) -> str:
    """A row in prepare's own columns; there is no reasoning."""
    question, answer = turn
    row = {
        "id": f"tiny_{number}",
        "source": kind,
        "question": question,
        "reasoning": None,
        "answer": answer,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def main() -> None:
    """Draw and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("data/samples"))
    out: Path = parser.parse_args().out
    lines = [to_line(number, kind, turn) for number, (kind, turn) in enumerate(turns())]
    (out / "general-tiny.jsonl").write_bytes("".join(lines).encode())
    print(f"{out}: {len(lines)} general rows of the tiny base's kind")


if __name__ == "__main__":
    main()
