"""A source's record becomes a row, or a reject with its reason, as its columns say."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from pipeline.answers.match import numbers
from pipeline.data.read.records import Record, check_flags, exchange, select, value_at, verified
from pipeline.data.read.replies import (
    RejectedError,
    bare_answer,
    bare_reasoning,
    clean,
    in_thought_tags,
    number_text,
    required_text,
    split_reply,
)
from pipeline.recipe import Columns

LONGEST_REFERENCE = 40
"""Characters: a longer solution is a derivation, which no exact match can score."""

EXCERPT = 300
"""Characters of a field or record that a reject shows."""


@dataclass(frozen=True)
class Row:
    """One question, its reasoning and its answer, as text without surrounding whitespace."""

    id: str
    source: str
    """Where the dataset took the question from, or the dataset where it does not say."""
    system: str | None
    question: str
    reasoning: str | None
    answer: str
    reference: str | None
    """The short final answer to score against, where the dataset has one."""
    reply_start: str | None = None
    """Text that the reply begins with, given before the answer."""

    def as_dict(self) -> dict[str, Any]:
        """The row contract; `reply_start` only where there is one."""
        return {key: value for key, value in vars(self).items() if key != "reply_start" or value}


ROW_FIELDS = tuple(name for name in Row.__dataclass_fields__ if name != "reply_start")
"""What every row has."""


@dataclass(frozen=True)
class Reject:
    """A record that became no training row; `where` is its line or row in the source."""

    reason: str
    where: str
    source: str
    excerpt: str
    row: Row | None = None
    """What was read of it, where it got that far."""

    def as_dict(self) -> dict[str, Any]:
        """The row contract and the reason, long texts clipped, writable as UTF-8."""
        known = self.row.as_dict() if self.row else dict.fromkeys(ROW_FIELDS)
        values = {key: clip(value) if value else value for key, value in known.items()}
        values["source"] = values["source"] or clip(self.source)
        return values | {
            "reason": self.reason,
            "where": self.where,
            "excerpt": clip(self.excerpt),
        }


def to_row(
    columns: Columns, record: Record, where: str, dataset: str, *, correct: bool = True
) -> Row | Reject:
    """The record's row, or a reject that names the first rule it breaks; nothing is raised.

    `correct` heeds the flags in `columns.correct` and `columns.complete`; without it the first
    well-formed candidate is taken. `where` and `dataset` stand in for a missing id and source.
    """
    source = _origin(columns, record, dataset)
    try:
        if not required(columns) <= record.keys():
            raise RejectedError("missing_column")
        select(columns, record)
        return _row(columns, record, where, source, correct)
    except RejectedError as rejected:
        return Reject(str(rejected), where, source, excerpt_of(record))


def required(columns: Columns) -> frozenset[str]:
    """The top-level columns that every record must have.

    It may lack those of `id`, `source`, `system`, `reference` and `input`.
    """
    texts = (columns.messages, columns.question, columns.reply, columns.reasoning, columns.answer)
    flags = (columns.candidates, columns.complete, *columns.correct, *columns.where)
    return frozenset(path.partition(".")[0] for path in (*texts, *flags) if path)


def excerpt_of(record: Any) -> str:
    """The beginning of a record as JSON; a huge record is clipped field by field first."""
    if isinstance(record, Mapping):
        record = {key: clip(v) if isinstance(v, str) else v for key, v in record.items()}
    try:
        return clip(json.dumps(record, ensure_ascii=False, default=str, skipkeys=True))
    except RecursionError:
        return "nested too deeply to show"
    except ValueError:
        return "no JSON: it holds itself, or an endless number"


def clip(text: str) -> str:
    """At most EXCERPT characters, with what UTF-8 cannot hold spelled out."""
    short = text if len(text) <= EXCERPT else text[:EXCERPT] + "…"
    return short.encode("utf-8", "backslashreplace").decode("utf-8")


def _row(columns: Columns, record: Record, where: str, source: str, correct: bool) -> Row:
    system, question, turn = _asked(columns, record)
    reasoning, answer, tagged = _replied(columns, record, turn, correct)
    return Row(
        id=_identifier(value_at(record, columns.id), where),
        source=clean(source),
        # where thought tags are, the system prompt only explains them
        system=None if tagged or system is None else clean(system) or None,
        question=_question(columns, record, question),
        reasoning=reasoning,
        answer=answer,
        reference=_reference(columns, record, answer),
        reply_start=columns.reply_start,
    )


def _asked(columns: Columns, record: Record) -> tuple[object, object, object]:
    """System message, question and the chat's reply, none of them cleaned."""
    system = value_at(record, columns.system)
    if columns.messages is None:
        return system, value_at(record, columns.question), None
    replied = not (columns.reply or columns.candidates or _elsewhere(columns))
    first, question, reply = exchange(value_at(record, columns.messages), replied=replied)
    return system if first is None else first, question, reply


def _elsewhere(columns: Columns) -> bool:
    """Whether there is an answer that is not the chat's own last turn."""
    return bool(columns.answer) and columns.answer != columns.messages


def _question(columns: Columns, record: Record, value: object) -> str:
    question = required_text(clean(value), "empty_question")
    more = value_at(record, columns.input)
    if more is not None and (second := clean(more)):
        question = f"{question}\n\n{second}"
    if columns.prompt is None:
        return question
    return clean(columns.prompt.replace("{question}", question))


def _replied(
    columns: Columns, record: Record, turn: object, correct: bool
) -> tuple[str | None, str, bool]:
    """Reasoning, answer, and whether they stood in thought tags."""
    if columns.candidates:
        return _candidate(columns, record, correct)
    if correct:
        check_flags(columns, record)
    if columns.answer:
        value = value_at(record, columns.answer) if _elsewhere(columns) else turn
        reasoning = _reasoning(columns, record) if columns.reasoning else None
        return reasoning, _answer(columns, value), False
    return _split(value_at(record, columns.reply) if columns.reply else turn)


def _reasoning(columns: Columns, record: Record) -> str:
    value = value_at(record, columns.reasoning)
    if value is None:
        raise RejectedError("no_reasoning")
    return bare_reasoning(clean(value))


def _answer(columns: Columns, value: object) -> str:
    if columns.labels:
        if not isinstance(value, int) or not 0 <= value < len(columns.labels):
            raise RejectedError("bad_label")
        value = columns.labels[value]
    answer = bare_answer(number_text(value) or clean(value))
    return _rounded(answer) if columns.round_answer else answer


def _rounded(answer: str) -> str:
    """The number as a whole one, halves up; `$1,234.50` is read as well."""
    found = numbers(answer)
    if len(found) != 1:
        raise RejectedError("no_number" if not found else "several_numbers")
    whole = Decimal(found[0].replace(",", "")).to_integral_value(ROUND_HALF_UP)
    return str(whole.copy_abs() if whole.is_zero() else whole)


def _split(reply: object) -> tuple[str, str, bool]:
    text = clean(reply)
    return (*split_reply(text), in_thought_tags(text))


def _candidate(columns: Columns, record: Record, correct: bool) -> tuple[str, str, bool]:
    """The first well-formed one of those that the flags allow."""
    replies = value_at(record, columns.candidates)
    if not isinstance(replies, list):
        raise RejectedError("not_text")
    count = len(replies)
    chosen = verified(columns, record, count) if correct else range(count)
    first = RejectedError("empty_answer")
    for index in chosen:
        try:
            return _split(replies[index])
        except RejectedError as rejected:
            first = rejected if index == chosen[0] else first
    raise first


def _origin(columns: Columns, record: Record, dataset: str) -> str:
    value = value_at(record, columns.source)
    return value if isinstance(value, str) and value.strip() else dataset


def _identifier(value: object, where: str) -> str:
    """The record's own id; where it has none, its place in the source."""
    text = value if isinstance(value, str) else number_text(value) or ""
    return clean(text) or where


def _reference(columns: Columns, record: Record, answer: str) -> str | None:
    """The short final answer; a classification's is its answer."""
    named = columns.reference or (columns.answer if columns.labels else None)
    if columns.labels and named == columns.answer:
        value: object = answer
    else:
        value = value_at(record, named)
    text = value if isinstance(value, str) else number_text(value) or ""
    short = text.strip()
    if not short or "\n" in short or len(short) > LONGEST_REFERENCE:
        return None
    return clean(short) or None
