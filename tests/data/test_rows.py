"""A record becomes a row, or a reject that names the first rule it breaks."""

import json
import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.read.rows import Reject, Row, clip, to_row
from pipeline.recipe import Columns
from tests.data.records import (
    CHATS,
    DIRECT,
    INLINE,
    QUESTION,
    REPLY,
    VALUES,
    any_columns,
    chat,
    inline,
    of,
    parts,
    reason,
)


def test_a_record_gives_question_reasoning_answer_and_reference():
    assert inline() == Row(
        id="a_1",
        source="numina",
        system=None,
        question="What is 2 + 2?",
        reasoning="Two and two is four.",
        answer="The answer is 4.",
        reference="4",
    )


def test_a_chat_of_one_exchange_gives_its_system_message_too():
    assert chat(("system", "Be brief."), ("user", "Hi"), ("assistant", REPLY)) == Row(
        id="row 1",
        source="some/dataset",
        system="Be brief.",
        question="Hi",
        reasoning="Two and two is four.",
        answer="The answer is 4.",
        reference=None,
    )


@pytest.mark.parametrize(
    ("gold", "reference"),
    [
        (" \\frac{1}{2}\n", "\\frac{1}{2}"),
        ("x" * 40, "x" * 40),
        ("x" * 41, None),
        ("first\nsecond", None),
        ("  ", None),
        (None, None),
        (4, "4"),
        (0.5, "0.5"),
        (math.nan, None),
        (["4"], None),
    ],
)
def test_reference_is_a_short_final_answer(gold, reference):
    assert inline(gold=gold).reference == reference


@pytest.mark.parametrize(
    ("id_", "expected"),
    [(None, "row 1"), ("", "row 1"), (12, "12"), ({}, "row 1")],
)
def test_a_row_without_an_id_is_named_by_its_place(id_, expected):
    assert inline(id=id_).id == expected


def test_a_source_that_is_no_text_is_the_dataset():
    assert [inline(source=source).source for source in (None, " ", 3)] == ["some/dataset"] * 3


def test_crlf_becomes_lf_and_edges_are_stripped():
    reply = "<think>\r\nOne.\r\nTwo.\r\n</think>\r\n\r\nThree.\r\nFour.\r\n"
    assert parts(inline(q="\r\n Why?\r\nSay. ", r=reply)) == (
        "Why?\nSay.",
        "One.\nTwo.",
        "Three.\nFour.",
    )


def test_a_byte_order_mark_before_a_text_is_dropped_and_within_it_kept():
    assert parts(inline(q="\ufeffa\ufeffb", r="\ufeff" + REPLY)) == (
        "a\ufeffb",
        "Two and two is four.",
        "The answer is 4.",
    )


@pytest.mark.parametrize(
    "text",
    [
        "What is <|eot_id|>?\u2028And\u0085this\rthat?",
        unicodedata.normalize("NFC", "é"),
        unicodedata.normalize("NFD", "é"),
        "שלום \u200fRTL\u200e",
        "👩\u200d🔬",
    ],
)
def test_control_token_text_and_unicode_stay_content(text):
    assert inline(q=text).question == text


def test_a_row_of_ten_megabytes_is_a_row():
    assert len(inline(q="word " * 2_000_000).question) == 9_999_999


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        ("empty_question", {"q": " \n\t"}),
        ("empty_question", {"q": "\ufeff"}),
        ("not_text", {"q": None}),
        ("not_text", {"q": 4}),
        ("not_text", {"q": math.nan}),
        ("bad_encoding", {"q": "\udfff"}),
        ("bad_encoding", {"id": "a\0"}),
        ("bad_encoding", {"source": "\ud800"}),
        ("bad_encoding", {"gold": "4\ud800"}),
    ],
)
def test_reject_reasons_of_other_columns(expected, changes):
    assert reason(inline(**changes)) == expected


@pytest.mark.parametrize(
    ("second", "question"),
    [
        ("one", "Translate:\n\none"),
        ("", "Translate:"),
        (" ", "Translate:"),
        (None, "Translate:"),
    ],
)
def test_alpaca_has_a_second_part_of_the_question(second, question):
    columns = Columns(question="instruction", input="input", answer="output")
    record = {"instruction": "Translate:", "input": second, "output": "eins"}
    assert parts(of(columns, record)) == (question, None, "eins")
    del record["input"]
    assert of(columns, record).question == "Translate:"
    assert reason(of(columns, record | {"input": math.nan})) == "not_text"


def test_the_prompt_goes_around_the_question_by_plain_replacement():
    columns = Columns(question="q", answer="a", prompt="{x} {question}\n{0}? ")
    row = of(columns, {"q": " %s \\1 {question} ", "a": "4"})
    assert row.question == "{x} %s \\1 {question}\n{0}?"


def test_a_classification_trains_the_label_and_is_scored_by_it():
    columns = Columns(
        question="text", answer="label", labels=("bad", "good"), prompt="Good or bad? {question}"
    )
    assert of(columns, {"text": "Fine film.", "label": 1}) == Row(
        id="row 1",
        source="some/dataset",
        system=None,
        question="Good or bad? Fine film.",
        reasoning=None,
        answer="good",
        reference="good",
    )
    assert of(columns, {"text": "Dull.", "label": False}).answer == "bad"


@pytest.mark.parametrize("label", [-1, 2, 1.0, "1", None, math.nan, [1]])
def test_a_label_that_is_no_number_of_a_name_is_a_reject(label):
    columns = Columns(question="text", answer="label", labels=("bad", "good"))
    assert reason(of(columns, {"text": "Fine.", "label": label})) == "bad_label"


def test_a_reject_shows_the_row_contract_and_an_excerpt():
    assert of(INLINE, {"id": "a", "q": "é", "r": 1}).as_dict() == {
        "id": None,
        "source": "some/dataset",
        "system": None,
        "question": None,
        "reasoning": None,
        "answer": None,
        "reference": None,
        "reason": "not_text",
        "where": "row 1",
        "excerpt": '{"id": "a", "q": "é", "r": 1}',
    }


def test_a_deeply_nested_record_is_a_reject():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    reject = inline(q=nested)
    assert (reject.reason, reject.excerpt) == ("not_text", "nested too deeply to show")


def test_a_record_that_json_cannot_show_is_a_reject():
    endless = {"q": None, "r": REPLY}
    endless["self"] = endless
    for record in (endless, {"q": None, "r": 10**5000}):
        reject = of(INLINE, record)
        assert reject.excerpt == "no JSON: it holds itself, or an endless number"


def test_an_integer_that_python_refuses_to_write_is_no_text():
    huge = 10**5000
    row = inline(gold=huge, id=huge)
    assert (row.id, row.reference) == ("row 1", None)
    assert reason(of(DIRECT, {"q": QUESTION, "a": huge})) == "not_text"
    columns = Columns(question="q", answer="a", labels=("bad",), where={"n": ("1",)})
    assert reason(of(columns, {"q": QUESTION, "a": huge, "n": huge})) == "not_selected"
    assert reason(of(columns, {"q": QUESTION, "a": huge, "n": 1})) == "bad_label"


def test_clip_keeps_300_characters():
    assert clip("x" * 300) == "x" * 300
    assert clip("x" * 301) == "x" * 300 + "…"


@given(
    any_columns(),
    st.dictionaries(st.sampled_from("abcmqrt"), VALUES | CHATS, max_size=7),
    st.booleans(),
)
def test_any_record_under_any_columns_is_a_row_or_a_reject(columns, record, correct):
    row = to_row(columns, record, "row 1", "some/dataset", correct=correct)
    if isinstance(row, Reject):
        json.dumps(row.as_dict(), ensure_ascii=False).encode("utf-8")
        return
    assert row.question and row.answer and row.reasoning != ""
    for text in vars(row).values():
        assert text is None or (text == text.strip() and text.encode("utf-8"))
