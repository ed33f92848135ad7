"""Records under small columns, and any JSON-like record at all."""

import json

from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.data.read.rows import Reject, Row, to_row
from pipeline.recipe import Columns

QUESTION = "What is 2 + 2?"
REPLY = "<think>\nTwo and two is four.\n</think>\n\nThe answer is 4."
INLINE = Columns(question="q", reply="r", id="id", source="source", reference="gold")
CHAT = Columns(messages="m")
APART = Columns(question="q", reasoning="t", answer="a")
DIRECT = Columns(question="q", answer="a")
PICK = Columns(question="q", candidates="c", correct=("ok", "also_ok"), complete="whole")


def of(columns, record, **options):
    return to_row(columns, record, "row 1", "some/dataset", **options)


def inline(**changes):
    record = {"id": "a_1", "q": QUESTION, "r": REPLY, "source": "numina", "gold": "4"}
    return of(INLINE, record | changes)


def chat(*turns, columns=CHAT, **other):
    return of(columns, {"m": [{"role": role, "content": text} for role, text in turns], **other})


def pick(candidates, ok=None, also_ok=None, whole=None, **options):
    whole = [True] * len(candidates) if whole is None else whole
    record = {"q": QUESTION, "c": candidates, "ok": ok, "also_ok": also_ok, "whole": whole}
    return of(PICK, record, **options)


def parts(row):
    assert isinstance(row, Row), row
    return row.question, row.reasoning, row.answer


def reason(row):
    assert isinstance(row, Reject), row
    json.dumps(row.as_dict(), ensure_ascii=False).encode("utf-8")
    return row.reason


def think(answer):
    return f"<think>so</think>{answer}"


PIECES = ("<think>", "</think>", "<answer>", "</answer>", " ", "a", "\n")
THOUGHTS = ("<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>")
NAMES = st.sampled_from(["a", "b", "c", "a.0", "b.role", "c.0.content", "a.b.c", "", "."])
TEXTS = st.one_of(
    st.text(st.characters(), max_size=20),
    st.lists(st.sampled_from((*PIECES, *THOUGHTS)), max_size=5).map("".join),
    st.sampled_from(["\ud800", "\0", "user", "assistant", "yes", "No", REPLY]),
)
KEYS = st.sampled_from(["a", "b", "c", "role", "content", "from", "value"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
CHATS = st.lists(st.fixed_dictionaries({"role": TEXTS | VALUES, "content": VALUES}), max_size=3)


@st.composite
def any_columns(draw):
    optional = ("messages", "question", "reply", "answer", "candidates", "reasoning", "complete")
    more = ("input", "system", "reference", "id", "source")
    said = {key: draw(NAMES) for key in draw(st.sets(st.sampled_from(optional + more)))}
    said |= {
        "labels": draw(st.lists(TEXTS, max_size=2)),
        "correct": draw(st.lists(NAMES, max_size=2)),
        "where": draw(st.dictionaries(NAMES, st.lists(TEXTS, max_size=2), max_size=1)),
    }
    try:
        return Columns.model_validate(said)
    except ValidationError:
        return draw(st.sampled_from([INLINE, CHAT, APART, DIRECT, PICK]))
