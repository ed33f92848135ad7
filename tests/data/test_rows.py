"""A record becomes a row, or a reject that names the first rule it breaks."""

import json

import pytest

from pipeline.data.rows import SHAPES, Reject, Row, clip, shape_of, to_row
from pipeline.errors import PipeError

V0, V1 = SHAPES

QUESTION = "What is 2 + 2?"
REPLY = "<think>\nTwo and two is four.\n</think>\n\nThe answer is 4."


def v0(**changes):
    record = {
        "id": "a_1",
        "reannotated_assistant_content": REPLY,
        "problem": QUESTION,
        "source": "numina",
        "solution": "4",
        "verified": None,
        "quality_metrics": None,
    }
    return record | changes


def v1(*turns, **changes):
    turns = turns or (("user", QUESTION), ("assistant", REPLY))
    record = {
        "id": 7,
        "reannotated_assistant_content": "elsewhere",
        "reannotated_messages": [{"role": role, "content": text} for role, text in turns],
        "messages": [{"role": "user", "content": "before R1"}],
        "source_dataset": "smoltalk",
        "source": "openhermes",
    }
    return record | changes


def row_of(record, shape=V0):
    return to_row(shape, record, "row 1", "some/dataset")


def test_v0_gives_question_reasoning_answer_and_reference():
    assert row_of(v0()) == Row(
        id="a_1",
        source="numina",
        system=None,
        question="What is 2 + 2?",
        reasoning="Two and two is four.",
        answer="The answer is 4.",
        reference="4",
    )


def test_v1_takes_the_reannotated_messages_only():
    assert row_of(v1(("system", "Be brief."), ("user", "Hi"), ("assistant", REPLY)), V1) == Row(
        id="7",
        source="openhermes",
        system="Be brief.",
        question="Hi",
        reasoning="Two and two is four.",
        answer="The answer is 4.",
        reference=None,
    )


@pytest.mark.parametrize(
    ("solution", "reference"),
    [
        (" \\frac{1}{2}\n", "\\frac{1}{2}"),
        ("x" * 40, "x" * 40),
        ("x" * 41, None),
        ("first\nsecond", None),
        ("  ", None),
        (None, None),
        (4, None),
    ],
)
def test_reference_is_a_short_final_answer(solution, reference):
    assert row_of(v0(solution=solution)).reference == reference


@pytest.mark.parametrize(("id_", "expected"), [(None, "row 1"), ("", "row 1"), (12, "12")])
def test_a_row_without_an_id_is_named_by_its_place(id_, expected):
    assert row_of(v0(id=id_)).id == expected


def test_an_empty_system_message_is_none():
    record = v1(("system", " \n"), ("user", "Hi"), ("assistant", REPLY))
    assert row_of(record, V1).system is None


def test_crlf_becomes_lf_and_edges_are_stripped():
    reply = "<think>\r\nOne.\r\nTwo.\r\n</think>\r\n\r\nThree.\r\nFour.\r\n"
    row = row_of(v0(problem="\r\n Why?\r\nSay. ", reannotated_assistant_content=reply))
    assert (row.question, row.reasoning, row.answer) == (
        "Why?\nSay.",
        "One.\nTwo.",
        "Three.\nFour.",
    )


def test_control_token_text_and_odd_line_ends_stay_content():
    row = row_of(v0(problem="What is <|eot_id|>?\u2028And\u0085this\rthat?"))
    assert row.question == "What is <|eot_id|>?\u2028And\u0085this\rthat?"


def test_a_row_of_ten_megabytes_is_a_row():
    row = row_of(v0(problem="word " * 2_000_000))
    assert len(row.question) == 9_999_999


@pytest.mark.parametrize(
    ("reason", "reply"),
    [
        ("no_reasoning", "The answer is 4."),
        ("no_reasoning", ""),
        ("several_blocks", "<think>a</think>b<think>c</think>d"),
        ("several_blocks", "<think>a<think>b</think>c"),
        ("several_blocks", "<think>a</think>b</think>c"),
        ("unclosed_block", "<think>\nTwo and two"),
        ("unclosed_block", "</think>a<think>b"),
        ("unopened_block", "Two and two\n</think>\n\n4"),
        ("text_before_reasoning", "Sure! <think>a</think>b"),
        ("empty_reasoning", "<think>\n \n</think>\n\n4"),
        ("empty_answer", "<think>\na\n</think>\n\n"),
        ("not_text", None),
        ("not_text", ["<think>a</think>b"]),
        ("bad_encoding", "<think>a\ud800</think>b"),
        ("bad_encoding", "<think>a\0</think>b"),
    ],
)
def test_reject_reasons_of_a_reply(reason, reply):
    reject = row_of(v0(reannotated_assistant_content=reply))
    assert (reject.reason, reject.where, reject.source) == (reason, "row 1", "numina")


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("empty_question", {"problem": " \n\t"}),
        ("not_text", {"problem": None}),
        ("not_text", {"problem": 4}),
        ("bad_encoding", {"problem": "\udfff"}),
        ("bad_encoding", {"id": "a\0"}),
        ("bad_encoding", {"source": "\ud800"}),
        ("bad_encoding", {"solution": "4\ud800"}),
    ],
)
def test_reject_reasons_of_other_columns(reason, changes):
    reject = row_of(v0(**changes))
    assert reject.reason == reason
    json.dumps(reject.as_dict(), ensure_ascii=False).encode("utf-8")


@pytest.mark.parametrize(
    ("reason", "messages"),
    [
        ("not_one_exchange", []),
        ("not_one_exchange", [{"role": "user", "content": "Hi"}]),
        ("not_one_exchange", v1(*[("user", "Hi"), ("assistant", REPLY)] * 2)),
        ("not_one_exchange", v1(("assistant", REPLY), ("user", "Hi"))),
        ("not_one_exchange", v1(("tool", "x"), ("user", "Hi"), ("assistant", REPLY))),
        ("not_one_exchange", [{}, {}]),
        ("not_text", None),
        ("not_text", "Hi"),
        ("not_text", ["Hi", REPLY]),
        ("not_text", v1(("user", None), ("assistant", REPLY))),
        ("not_text", v1(("system", 3), ("user", "Hi"), ("assistant", REPLY))),
        ("not_text", [{"role": "user"}, {"role": "assistant"}]),
    ],
)
def test_reject_reasons_of_messages(reason, messages):
    record = messages if isinstance(messages, dict) else v1(reannotated_messages=messages)
    reject = row_of(record, V1)
    assert isinstance(reject, Reject)
    assert reject.reason == reason


def test_a_reject_shows_the_row_contract_and_an_excerpt():
    record = {"id": "a", "problem": "é", "reannotated_assistant_content": 1}
    assert row_of(record).as_dict() == {
        "id": None,
        "source": "some/dataset",
        "system": None,
        "question": None,
        "reasoning": None,
        "answer": None,
        "reference": None,
        "reason": "not_text",
        "where": "row 1",
        "excerpt": '{"id": "a", "problem": "é", "reannotated_assistant_content": 1}',
    }


def test_a_deeply_nested_record_is_a_reject():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    reject = row_of(v0(problem=nested))
    assert (reject.reason, reject.excerpt) == ("not_text", "nested too deeply to show")


def test_clip_keeps_300_characters():
    assert clip("x" * 300) == "x" * 300
    assert clip("x" * 301) == "x" * 300 + "…"


def test_the_shape_is_told_by_columns():
    assert shape_of([v0()], "f") is V0
    assert shape_of([v1()], "f") is V1
    assert shape_of([object(), {"stray": 1}, v1()], "f") is V1


def test_unknown_columns_say_what_was_expected_and_found():
    with pytest.raises(PipeError) as error:
        shape_of([{"prompt": "a", "completion": "b"}], "f.jsonl")
    assert error.value.message == (
        "The columns of f.jsonl are not known. "
        "Expected: problem, reannotated_assistant_content (ServiceNow-AI/R1-Distill-SFT v0); "
        "or reannotated_messages (ServiceNow-AI/R1-Distill-SFT v1). "
        "Found: completion, prompt."
    )
