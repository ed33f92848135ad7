"""A question of a task, what its answer is held against, and whether an answer is right."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from pipeline.answers import exact_match
from pipeline.answers.match import final, last_boxed, numbers
from pipeline.answers.maths import is_bounded, parse
from pipeline.chat import Conversation, Exchange, conversation_of, exchange_of
from pipeline.errors import PipeError

Row = Mapping[str, Any]

LONGEST = 500
"""Characters of a final answer: longer is prose, over which math-verify takes many seconds."""
FEW_WORDS = 6
"""Of an answer without a number that other answers are held against."""


@dataclass(frozen=True)
class Item:
    """One question."""

    id: str
    row: Row
    """`question`, and where there is one `system`, `reasoning`, `answer` and `reference`; further
    columns as the task's source has them."""
    reference: str | None
    """The answer is held against it; None where it is not graded."""

    @property
    def conversation(self) -> Conversation:
        return conversation_of(self.row)

    @property
    def exchange(self) -> Exchange | None:
        """The question and the row's own reply, where it has one."""
        return exchange_of(self.row) if self.row.get("answer") else None


def item_of(row: Row, where: str, task: str = "test") -> Item:
    """The row as a question; without a reference its own answer is one, where it can be.

    That is an answer with a number or a box in it, or of at most FEW_WORDS: of longer prose no
    other model says the same, and all would be wrong. Such a question is not graded.
    Raises PipeError for a row without a question in text, or with other than text beside it.
    """
    place = f"{task}, {where}"
    for key in ("question", "system", "reasoning", "answer"):
        value = row.get(key)
        if not (isinstance(value, str) or (value is None and key != "question")):
            raise PipeError(
                f"{place}: `{key}` is no text but {type(value).__name__}.",
                "A task's rows hold question, and answer or reference; system where there is one.",
            )
    if not str(row["question"]).strip():
        raise PipeError(f"{place}: the question is empty.", "Remove that row.")
    reference = row.get("reference")
    wanted = _own_reference(row) if reference is None or reference == "" else reference
    return Item(str(row.get("id") or where), row, None if wanted is None else str(wanted))


def without_unreadable(items: list[Item]) -> tuple[list[Item], int]:
    """The items, those whose reference cannot be read no longer graded, and how many those are."""
    checked = [
        item if item.reference is None or is_readable(item.reference) else _ungraded(item)
        for item in items
    ]
    return checked, sum(a is not b for a, b in zip(items, checked, strict=True))


def is_readable(reference: str) -> bool:
    """Whether an answer can be held against it: a number, or what math-verify can parse.

    Otherwise every answer would be wrong: lighteval and open-r1 leave such an item out as well.
    """
    wanted = final(reference)
    if numbers(wanted) == [wanted]:
        return True
    short = 0 < len(wanted) <= LONGEST
    return short and is_bounded(wanted) and bool(parse(f"${wanted}$"))


@lru_cache(maxsize=100_000)
def is_right(answer: str, reference: str) -> bool:
    """As `exact_match`; the same answers come from many engines."""
    return exact_match(answer, reference)


def _own_reference(row: Row) -> str | None:
    answer = row.get("answer") or ""
    says_one_thing = numbers(answer) or last_boxed(answer) or len(answer.split()) <= FEW_WORDS
    return answer if answer and says_one_thing else None


def _ungraded(item: Item) -> Item:
    return replace(item, reference=None)
