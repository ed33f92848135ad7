"""A source's record becomes a row, or a reject with its reason."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipeError

OPEN, CLOSE = "<think>", "</think>"
"""The tags that the datasets put around a reasoning block, whatever the chat format uses."""

LONGEST_REFERENCE = 40
"""Characters: a longer solution is a derivation, which no exact match can score."""

EXCERPT = 300
"""Characters of a field or record that a reject shows."""

Record = Mapping[str, Any]


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
        known = vars(self.row) if self.row else dict.fromkeys(Row.__dataclass_fields__)
        values = {key: clip(value) if value else value for key, value in known.items()}
        values["source"] = values["source"] or clip(self.source)
        return values | {
            "reason": self.reason,
            "where": self.where,
            "excerpt": clip(self.excerpt),
        }


class _RejectedError(Exception):
    """Carries the reason from the rule that found it to `to_row`."""


@dataclass(frozen=True)
class Shape:
    """How one dataset lays out its records."""

    name: str
    columns: frozenset[str]
    """A record with all of these has this shape."""
    texts: Callable[[Record], tuple[str | None, str, str]]
    """System message, question and reply of a record, not yet cleaned."""


def shape_of(records: Iterable[Any], name: str) -> Shape:
    """The shape of the first record that has one.

    Raises PipeError with the columns expected and found where no record has a known shape.
    """
    found: list[str] = []
    for record in records:
        if not isinstance(record, Mapping):
            continue
        for shape in SHAPES:
            if shape.columns <= record.keys():
                return shape
        found = found or sorted(map(str, record))
    expected = "; or ".join(f"{', '.join(sorted(s.columns))} ({s.name})" for s in SHAPES)
    raise PipeError(
        f"The columns of {name} are not known. Expected: {expected}. "
        f"Found: {clip(', '.join(found)) or 'no record at all'}.",
        "Give the file the columns of one of these, or name another dataset in data.sources.",
    )


def to_row(shape: Shape, record: Record, where: str, dataset: str) -> Row | Reject:
    """The record's row, or a reject that names the first rule it breaks."""
    origin = record.get("source")
    source = origin if isinstance(origin, str) and origin.strip() else dataset
    try:
        system, question, reply = shape.texts(record)
        reasoning, answer = _split(_clean(reply))
        return Row(
            id=_identifier(record.get("id"), where),
            source=_clean(source),
            system=None if system is None else _clean(system) or None,
            question=_required(_clean(question), "empty_question"),
            reasoning=reasoning,
            answer=answer,
            reference=_reference(record.get("solution")),
        )
    except _RejectedError as rejected:
        return Reject(str(rejected), where, source, excerpt_of(record))


def excerpt_of(record: Any) -> str:
    """The beginning of a record as JSON; a huge record is clipped field by field first."""
    if isinstance(record, Mapping):
        record = {key: clip(v) if isinstance(v, str) else v for key, v in record.items()}
    try:
        return clip(json.dumps(record, ensure_ascii=False, default=str))
    except RecursionError:
        return "nested too deeply to show"


def clip(text: str) -> str:
    """At most EXCERPT characters, with what UTF-8 cannot hold spelled out."""
    short = text if len(text) <= EXCERPT else text[:EXCERPT] + "…"
    return short.encode("utf-8", "backslashreplace").decode("utf-8")


def _v0(record: Record) -> tuple[str | None, str, str]:
    return None, record["problem"], record["reannotated_assistant_content"]


def _v1(record: Record) -> tuple[str | None, str, str]:
    """One exchange, a system message before it or not."""
    messages = record["reannotated_messages"]
    if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages):
        raise _RejectedError("not_text")
    roles = [message.get("role") for message in messages]
    contents = [message.get("content") for message in messages]
    if roles == ["user", "assistant"]:
        return None, contents[0], contents[1]
    if roles == ["system", "user", "assistant"]:
        return contents[0], contents[1], contents[2]
    raise _RejectedError("not_one_exchange")


SHAPES = (
    Shape(
        "ServiceNow-AI/R1-Distill-SFT v0",
        frozenset({"problem", "reannotated_assistant_content"}),
        _v0,
    ),
    # its column `messages` holds the replies from before R1
    Shape("ServiceNow-AI/R1-Distill-SFT v1", frozenset({"reannotated_messages"}), _v1),
)


def _clean(text: object) -> str:
    """Text that UTF-8 can hold, `\\n` at its line ends, nothing around it."""
    if not isinstance(text, str):
        raise _RejectedError("not_text")
    if "\0" in text:
        raise _RejectedError("bad_encoding")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _RejectedError("bad_encoding") from None
    return text.replace("\r\n", "\n").strip()


def _split(reply: str) -> tuple[str, str]:
    """Reasoning and answer of a reply that is one closed block and an answer."""
    opened, closed = reply.count(OPEN), reply.count(CLOSE)
    if not opened and not closed:
        raise _RejectedError("no_reasoning")
    if opened > 1 or closed > 1:
        raise _RejectedError("several_blocks")
    before, _, rest = reply.partition(OPEN)
    if CLOSE not in rest:
        raise _RejectedError("unclosed_block" if opened else "unopened_block")
    if before.strip():
        raise _RejectedError("text_before_reasoning")
    reasoning, _, answer = rest.partition(CLOSE)
    return (
        _required(reasoning.strip(), "empty_reasoning"),
        _required(answer.strip(), "empty_answer"),
    )


def _required(text: str, reason: str) -> str:
    if not text:
        raise _RejectedError(reason)
    return text


def _identifier(value: object, where: str) -> str:
    """The record's own id; where it has none, its place in the source."""
    return (_clean(str(value)) if isinstance(value, str | int) else "") or where


def _reference(solution: object) -> str | None:
    if not isinstance(solution, str):
        return None
    short = _clean(solution)
    return short if short and "\n" not in short and len(short) <= LONGEST_REFERENCE else None
