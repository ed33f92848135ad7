"""Write the synthetic sample rows: `data/samples/{train,test}.jsonl`, and the folder's card.

A row is a short story with a start number and three signed changes, a trace with one line per
change, and a one-sentence answer. The columns are those of ServiceNow-AI/R1-Distill-SFT (v0), so
that the samples travel the same path as the real data. Same seed, same bytes.

    python scripts/make_samples.py --out data/samples
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

SEED = 20
TRAIN_ROWS = 2400
TEST_ROWS = 250
SOURCE = "synthetic_number_stories"
LOWEST, HIGHEST = 1, 99
LARGEST_CHANGE = 9

# fmt: off
NAMES = (
    "Leo", "Mia", "Ana", "Ben", "Sam", "Eva", "Max", "Ida", "Tom", "Zoe",
    "Kim", "Joe", "Amy", "Dan", "Lea", "Tim", "Ava", "Roy", "Una", "Ray",
)
ITEMS = (
    "pens", "cups", "hats", "nuts", "keys", "toys", "eggs", "figs",
    "maps", "caps", "bags", "coins", "books", "cards", "shells", "stamps",
)
# fmt: on
PLUS = (
    "finds {n} more",
    "buys {n} more",
    "gets {n} more",
    "wins {n} more",
    "adds {n} more",
    "picks up {n} more",
)
MINUS = ("loses {n}", "sells {n}", "drops {n}", "breaks {n}", "gives away {n}", "hands out {n}")
OPENINGS = (
    "{name} owns {n} {item}.",
    "{name} has {n} {item}.",
    "{name} starts with {n} {item}.",
    "At first {name} has {n} {item}.",
)
QUESTIONS = (
    "How many {item} does {name} have now?",
    "How many {item} does {name} have in the end?",
    "How many {item} are left with {name}?",
)

Key = tuple[int, ...]
"""What makes two problems the same sum: the start number, then the signed changes."""


@dataclass(frozen=True)
class Story:
    """One word problem; `phrases[i]` is the wording of `changes[i]`, with `{n}` in it."""

    name: str
    item: str
    opening: str
    question: str
    start: int
    changes: tuple[int, ...]
    phrases: tuple[str, ...]

    @property
    def key(self) -> Key:
        """Start number and signed changes."""
        return (self.start, *self.changes)

    @property
    def total(self) -> int:
        """The number that answers the question."""
        return sum(self.key)

    def events(self) -> list[str]:
        """One clause per change, such as "Leo finds 26 more"."""
        pairs = zip(self.phrases, self.changes, strict=True)
        return [f"{self.name} {phrase.format(n=abs(change))}" for phrase, change in pairs]

    def sentences(self) -> list[str]:
        """The story without its question, one sentence each."""
        first = self.opening.format(name=self.name, n=self.start, item=self.item)
        return [first, *(f"{event}." for event in self.events())]

    def problem(self) -> str:
        """The story and its question, on one line."""
        return " ".join([*self.sentences(), self.question.format(name=self.name, item=self.item)])

    def trace(self) -> str:
        """One line per change, then the result: a small model carries no other over `</think>`."""
        lines, total = [], self.start
        for event, change in zip(self.events(), self.changes, strict=True):
            sign = "+" if change > 0 else "-"
            lines.append(f"{event}: {total}{sign}{abs(change)}={total + change}")
            total += change
        return "\n".join([*lines, f"The result is {total}."])

    def answer(self) -> str:
        """The reply's last part: one sentence with the number."""
        return f"{self.name} has {self.total} {self.item}."


def draw_story(rng: random.Random, changes: int = 3, exclude: Collection[Key] = ()) -> Story:
    """Draw a story whose running total stays in 1..99 and whose key is not in `exclude`."""
    while True:
        totals = [rng.randint(LOWEST, HIGHEST)]
        while len(totals) <= changes:
            following = totals[-1] + rng.choice((-1, 1)) * rng.randint(1, LARGEST_CHANGE)
            if LOWEST <= following <= HIGHEST:
                totals.append(following)
        steps = tuple(after - before for before, after in pairwise(totals))
        story = Story(
            name=rng.choice(NAMES),
            item=rng.choice(ITEMS),
            opening=rng.choice(OPENINGS),
            question=rng.choice(QUESTIONS),
            start=totals[0],
            changes=steps,
            phrases=tuple(rng.choice(PLUS if step > 0 else MINUS) for step in steps),
        )
        if story.key not in exclude:
            return story


def draw_stories(rng: random.Random, count: int, exclude: Collection[Key] = ()) -> list[Story]:
    """Draw `count` three-change stories, no two with the same key and none in `exclude`."""
    taken = set(exclude)
    stories: list[Story] = []
    while len(stories) < count:
        story = draw_story(rng, exclude=taken)
        taken.add(story.key)
        stories.append(story)
    return stories


def build_splits(
    seed: int = SEED, train_rows: int = TRAIN_ROWS, test_rows: int = TEST_ROWS
) -> tuple[list[Story], list[Story]]:
    """Return (train, test); test is drawn first, so it does not depend on the size of train."""
    rng = random.Random(seed)
    test = draw_stories(rng, test_rows)
    train = draw_stories(rng, train_rows, exclude={story.key for story in test})
    return train, test


def held_out_keys() -> frozenset[Key]:
    """The keys of the test rows, which no training or pretraining text may hold."""
    return frozenset(story.key for story in build_splits()[1])


def problem_key(problem: str) -> Key:
    """Read the start number and the signed changes back from a problem."""
    sentences = problem.split(". ")
    opening = re.search(r"\d+", sentences[0])
    if opening is None:
        raise ValueError(f"no start number: {problem!r}")
    changes = []
    for sentence in sentences[1:-1]:
        _, _, clause = sentence.partition(" ")
        number = re.search(r"\d+", clause)
        phrase = re.sub(r"\d+", "{n}", clause)
        if number is None or phrase not in (*PLUS, *MINUS):
            raise ValueError(f"not a change: {sentence!r}")
        changes.append(int(number[0]) if phrase in PLUS else -int(number[0]))
    return (int(opening[0]), *changes)


def check_row(row: dict[str, str | None]) -> None:
    """Recompute the row from its texts alone; raise ValueError where they disagree."""
    content, problem = row["reannotated_assistant_content"] or "", row["problem"] or ""
    match = re.fullmatch(r"<think>\n(.+)\n</think>\n\n(\w+ has (\d+) \w+\.)", content, re.DOTALL)
    if match is None:
        raise ValueError(f"{row['id']}: not a trace and an answer: {content!r}")
    key = problem_key(problem)
    *steps, result = match[1].split("\n")
    total = key[0]
    for change, step in zip(key[1:], steps, strict=True):
        sign = "+" if change > 0 else "-"
        event, _, equation = step.partition(": ")
        if f"{event}." not in problem:
            raise ValueError(f"{row['id']}: the problem does not say {event!r}")
        if equation != f"{total}{sign}{abs(change)}={total + change}":
            raise ValueError(f"{row['id']}: wrong line {step!r} after {total}")
        total += change
        if not LOWEST <= total <= HIGHEST:
            raise ValueError(f"{row['id']}: running total {total}")
    if (result, match[3], row["solution"]) != (f"The result is {total}.", str(total), str(total)):
        raise ValueError(f"{row['id']}: the result should be {total}")


def to_row(story: Story, row_id: str) -> dict[str, str | None]:
    """The story as a checked row with the columns of R1-Distill-SFT v0."""
    row: dict[str, str | None] = {
        "id": row_id,
        "reannotated_assistant_content": f"<think>\n{story.trace()}\n</think>\n\n{story.answer()}",
        "problem": story.problem(),
        "source": SOURCE,
        "solution": str(story.total),
        "verified": None,
        "quality_metrics": None,
    }
    check_row(row)
    return row


def check_disjoint(train: list[dict[str, str | None]], test: list[dict[str, str | None]]) -> None:
    """Raise ValueError unless test sums are all different and none is in train, by their texts."""
    train_keys = {problem_key(row["problem"] or "") for row in train}
    test_keys = {problem_key(row["problem"] or "") for row in test}
    if len(test_keys) != len(test):
        raise ValueError("two test rows hold the same sum")
    if train_keys & test_keys:
        raise ValueError(f"{len(train_keys & test_keys)} test sums are in the training rows")


CARD = """\
---
license: apache-2.0
language: en
---
# Synthetic number stories, and general rows

**The stories are synthetic.** A script wrote them; no person and no language model did, and no row
comes from R1-Distill-SFT or another dataset. They exist so that the whole pipeline runs in minutes
on a CPU. A score on them says that the pipeline works, nothing about reasoning elsewhere.

| file | rows |
| --- | --- |
| `train.jsonl` | {train} stories |
| `test.jsonl` | {test} stories |
| `general.jsonl` | 64 everyday questions with direct answers, written for this project |
| `general-tiny.jsonl` | 660 of what the tiny base can do, by `scripts/make_general.py` |
| `prompts.jsonl` | 3 questions to be read before and after: no reference |
| `alpaca-tiny.jsonl` | 48 instructions with answers, written for this project |
| `catalogue.jsonl`, `catalogue-test.jsonl` | 2000 and 250 products, by `make_catalogue.py` |

**The general rows** show what a base forgets while it is tuned (`data.general`): facts, rewriting,
lists, small talk, writing, code, one word, nine languages. They are no benchmark.

**How the stories were made.** `python scripts/make_samples.py` (seed {seed}): a start number and
three signed changes of at most {largest}, the running total kept in {lowest}..{highest}, told with
one of {names} names, {items} items, {plus} plus and {minus} minus phrases, {openings} openings and
{questions} questions. The script reads every trace line and answer back and recomputes it. No test
row shares its numbers and operations with another row, whatever the wording.

**Columns** of the stories, those of ServiceNow-AI/R1-Distill-SFT (v0):

| column | content |
| --- | --- |
| `id` | `synthetic_<split>_<number>` |
| `reannotated_assistant_content` | `<think>`, the trace, `</think>`, a blank line, the answer |
| `problem` | the story and its question |
| `source` | `{source}` |
| `solution` | the bare number, as text |
| `verified`, `quality_metrics` | null |

Licence: Apache-2.0.
"""


def write_card(out: Path, train: int, test: int) -> None:
    """Write the dataset card; its counts are those of the files beside it."""
    kinds = {"names": NAMES, "items": ITEMS, "plus": PLUS, "minus": MINUS}
    kinds |= {"openings": OPENINGS, "questions": QUESTIONS}
    counts = {kind: len(choices) for kind, choices in kinds.items()}
    bounds = {"lowest": LOWEST, "highest": HIGHEST, "largest": LARGEST_CHANGE}
    card = CARD.format(train=train, test=test, seed=SEED, source=SOURCE, **bounds, **counts)
    (out / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    """Build, check and write both."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("data/samples"))
    out: Path = parser.parse_args().out
    train, test = (
        [to_row(story, f"synthetic_{split}_{index}") for index, story in enumerate(stories)]
        for split, stories in zip(("train", "test"), build_splits(), strict=True)
    )
    check_disjoint(train, test)
    out.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", train), ("test", test)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{split}.jsonl").write_bytes(lines.encode())
    write_card(out, len(train), len(test))
    print(f"{out}: {len(train)} train rows, {len(test)} test rows, all recomputed and disjoint")


if __name__ == "__main__":
    main()
