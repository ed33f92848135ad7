"""Find by looking at records which column holds what."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.data.read.replies import has_tags
from pipeline.data.read.rows import Row, to_row
from pipeline.recipe import Columns

Head = Sequence[Mapping[str, Any]]
"""A source's first records."""

# customary names, the more telling first; letter case does not matter
_QUESTIONS = ("question", "problem", "instruction", "prompt", "query", "input", "user")
_REASONINGS = ("reasoning", "reasoning_content", "thinking", "complex_cot", "cot", "thought")
_REASONING_ENDS = ("_reasoning", "_thinking", "_thinking_trajectory", "_cot", "_thought")
_ANSWERS = ("answer", "response", "output", "completion", "content", "solution", "reply")
_ANSWER_ENDS = ("_answer", "_response", "_attempt", "_solution", "_output")
_TEXTS = ("text", "sentence", "review", "content", "title")
_LABELS = ("label_text", "label", "labels", "category", "class", "sentiment")
_REFERENCES = (
    "reference",
    "reference_answer",
    "expected_answer",
    "ground_truth",
    "final_answer",
    "answer",
    "solution",
)
_IDS = ("id", "uuid")

_RIVAL = 0.1
"""Share of rows from which on a reading that gives more rows is no rival: where some replies lack
reasoning, or were found wrong, leaving out reasoning or flags loses what the data is for."""


def detect(head: Head) -> Columns | None:
    """The columns by which most records of `head` become rows; None where none does.

    Candidates with flags win over a reply that nobody judged, and columns with reasoning over
    those of direct answers, wherever they read one row in ten.
    """
    reasoned = list(_reasoned(head))
    judged = [columns for columns in reasoned if columns.correct]
    for proposals, share in ((judged, _RIVAL), (reasoned, _RIVAL), (_direct(head), 0.0)):
        counted = [(columns, good_rows(columns, head)) for columns in proposals]
        best = max(counted, key=lambda pair: pair[1], default=None)
        if best and best[1] > 0 and best[1] >= share * len(head):
            return best[0]
    return None


def good_rows(columns: Columns, head: Head, *, correct: bool = True) -> int:
    """How many records become rows."""
    rows = (to_row(columns, record, "", "", correct=correct) for record in head)
    return sum(isinstance(row, Row) for row in rows)


def names_of(head: Head) -> list[str]:
    """Every top-level column, in the records' order."""
    return list(dict.fromkeys(str(name) for record in head for name in record))


def _reasoned(head: Head) -> Iterator[Columns]:
    """Columns under which there may be reasoning, the likelier first."""
    names = names_of(head)
    for chat in chat_columns(head):
        yield _with_extras(names, messages=chat)
    for reply in names:
        yield from _with_tags(head, reply)
    for reasoning in _customary(names, _REASONINGS, _REASONING_ENDS):
        # deepseek_attempt belongs to deepseek_thinking_trajectory
        answers = _customary(names, _ANSWERS, _ANSWER_ENDS)
        for answer in sorted(answers, key=lambda name: _stem(name) != _stem(reasoning)):
            for asked in _asked(head):
                yield _with_extras(names, **asked, reasoning=reasoning, answer=answer)


def _with_tags(head: Head, reply: str) -> Iterator[Columns]:
    """Readings of a column whose texts, lists of texts or chats hold reasoning in tags."""
    names = names_of(head)
    said: dict[str, Any] = {}
    if _mostly(head, reply, _is_tagged):
        said = {"reply": reply}
    elif _mostly(head, reply, _is_tagged_list):
        said = {"candidates": reply, **_flags(head)}
    elif _mostly(head, reply, _is_chat):
        said = {"reply": f"{reply}.0.content"}
    for asked in _asked(head) if said else ():
        if reply not in asked.values():
            yield _with_extras(names, **asked, **said)


def _direct(head: Head) -> Iterator[Columns]:
    """Columns of questions with direct answers: alpaca, prompt and completion, text and label."""
    names = names_of(head)
    chats = chat_columns(head)
    answers = _customary(names, _ANSWERS, _ANSWER_ENDS)
    for answer in [*answers, *(f"{chat}.0.content" for chat in chats)]:
        for asked in _asked(head):
            if answer.partition(".")[0] not in asked.values():
                yield _with_extras(names, **asked, answer=answer)
    for chat in chats:
        yield _with_extras(names, messages=chat, answer=chat)
    for text in _customary(names, _TEXTS):
        for label in _customary(names, _LABELS):
            yield _with_extras(names, question=text, answer=label, reference=label)


def _asked(head: Head) -> list[dict[str, str]]:
    """Where the question may stand."""
    questions = [{"question": name} for name in _customary(names_of(head), _QUESTIONS)]
    return [*questions, *({"messages": chat} for chat in chat_columns(head))]


def _with_extras(names: Sequence[str], **columns: Any) -> Columns:
    """The columns, and those that are optional by their customary names."""
    extras = {"id": _IDS, "source": ("source",), "system": ("system",), "reference": _REFERENCES}
    if str(columns.get("question")).lower() == "instruction":
        extras["input"] = ("input",)
    for key, customary in extras.items():
        free = [name for name in _customary(names, customary) if name not in columns.values()]
        if free:
            columns.setdefault(key, free[0])
    return Columns.model_validate(columns)


def _flags(head: Head) -> dict[str, Any]:
    """Columns that judge candidates, by their names; a judge may have left most records out."""
    lists = [n for n in names_of(head) if any(isinstance(record.get(n), list) for record in head)]
    complete = next((name for name in lists if "complete" in name.lower()), None)
    correct = [name for name in lists if name.lower().startswith("correct")]
    return {"correct": correct, "complete": complete}


def _customary(
    names: Sequence[str], customary: Sequence[str], ends: tuple[str, ...] = ()
) -> list[str]:
    """Those of `names` that are customary, in that order, then those with a customary end."""
    ranked = [name for wanted in customary for name in names if name.lower() == wanted]
    return [*ranked, *(n for n in names if n.lower().endswith(ends) and n not in ranked)]


def chat_columns(head: Head) -> list[str]:
    """The columns whose values are mostly lists of turns, of however many."""
    return [name for name in names_of(head) if _mostly(head, name, _is_chat)]


def _mostly(head: Head, name: str, test: Callable[[object], bool]) -> bool:
    return 2 * sum(map(test, (record.get(name) for record in head))) >= len(head)


def _is_chat(value: object) -> bool:
    turn = value[0] if isinstance(value, list) and value else None
    return isinstance(turn, Mapping) and bool({"role", "from"} & turn.keys())


def _is_tagged(value: object) -> bool:
    return isinstance(value, str) and has_tags(value)


def _is_tagged_list(value: object) -> bool:
    return isinstance(value, list) and any(map(_is_tagged, value))


def _stem(name: str) -> str:
    return name.rpartition("_")[0].partition("_")[0].lower()
