"""A reply is taken apart in any of the datasets' tags, or refused with a reason."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.read.replies import RejectedError, in_thought_tags, split_reply
from pipeline.data.read.rows import Row
from tests.data.records import APART, DIRECT, PIECES, QUESTION, THOUGHTS, inline, of, reason


@pytest.mark.parametrize(
    ("expected", "reply"),
    [
        ("no_reasoning", "The answer is 4."),
        ("no_reasoning", ""),
        ("several_blocks", "<think>a</think>b<think>c</think>d"),
        ("several_blocks", "<think>a<think>b</think>c"),
        ("several_blocks", "<think>a</think>b</think>c"),
        ("several_blocks", "<think>a<|begin_of_thought|></think>c"),
        ("unclosed_block", "<think>\nTwo and two"),
        ("unclosed_block", "</think>a<think>b"),
        ("unclosed_block", "<think>a</think><answer>4"),
        ("unopened_block", "Two and two\n</think>\n\n4"),
        ("text_before_reasoning", "Sure! <think>a</think>b"),
        ("empty_reasoning", "<think>\n \n</think>\n\n4"),
        ("empty_answer", "<think>\na\n</think>\n\n"),
        ("empty_answer", "<think>a</think><answer> </answer>"),
        ("unclosed_block", "<|begin_of_thought|>a"),
        ("unopened_block", "a<|end_of_thought|>b"),
        ("unopened_block", "<|begin_of_thought|>a<|end_of_thought|>b"),
        ("unopened_block", "<|begin_of_solution|>b<|end_of_solution|>"),
        (
            "unopened_block",
            "<|begin_of_thought|>a<|end_of_thought|>so<|begin_of_solution|>b<|end_of_solution|>",
        ),
        (
            "several_blocks",
            "<|begin_of_thought|><think>a</think><|end_of_thought|>"
            "<|begin_of_solution|>b<|end_of_solution|>",
        ),
        ("not_text", None),
        ("not_text", math.nan),
        ("not_text", ["<think>a</think>b"]),
        ("bad_encoding", "<think>a\ud800</think>b"),
        ("bad_encoding", "<think>a\0</think>b"),
        ("bad_encoding", "<think>é\0</think>b"),
    ],
)
def test_reject_reasons_of_a_reply(expected, reply):
    reject = inline(r=reply)
    assert (reason(reject), reject.where, reject.source) == (expected, "row 1", "numina")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("<think> a </think> b ", ("a", "b")),
        ("<think>a</think>\n<answer>\nb\n</answer>\n", ("a", "b")),
        ("<think>a</think>An <answer> tag", ("a", "An <answer> tag")),
        (
            "<think>a</think><answer>1</answer> or <answer>2</answer>",
            ("a", "<answer>1</answer> or <answer>2</answer>"),
        ),
        ("<think>a < b, a<|eot_id|></think>b", ("a < b, a<|eot_id|>", "b")),
        (
            "\n<|begin_of_thought|>\na\n<|end_of_thought|>\n\n"
            "<|begin_of_solution|>\nb\n<|end_of_solution|>",
            ("a", "b"),
        ),
    ],
)
def test_a_reply_is_split_in_any_of_the_tags(reply, expected):
    assert split_reply(reply) == expected


@given(st.lists(st.sampled_from((*PIECES, *THOUGHTS, "<|end_of_solution|>"))).map("".join))
def test_whatever_the_tags_no_tag_gets_into_reasoning_or_answer(reply):
    try:
        reasoning, answer = split_reply(reply)
    except RejectedError:
        return
    for tag in ("<think>", "</think>", "_thought|>", "_solution|>"):
        assert tag not in reasoning + answer
    assert reasoning and answer and (reasoning, answer) == (reasoning.strip(), answer.strip())


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        (" so\r\n", "so"),
        ("<think>\nso\n</think>", "so"),
        (None, "no_reasoning"),
        (math.nan, "not_text"),
        (" ", "empty_reasoning"),
        ("<think> </think>", "empty_reasoning"),
        ("so</think>", "unopened_block"),
        ("<think>so", "unclosed_block"),
        ("<think>so</think>and", "several_blocks"),
        ("<think>so</think><|end_of_thought|>", "several_blocks"),
        ("so<|begin_of_thought|>", "unopened_block"),
    ],
)
def test_reasoning_of_its_own_column(reasoning, expected):
    row = of(APART, {"q": QUESTION, "t": reasoning, "a": "4"})
    assert (row.reasoning if isinstance(row, Row) else row.reason) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("4\n", "4"),
        (4, "4"),
        (0, "0"),
        (2.5, "2.5"),
        (True, "True"),
        (None, "not_text"),
        (math.nan, "not_text"),
        (math.inf, "not_text"),
        ({}, "not_text"),
        ("", "empty_answer"),
        ("<think>so</think>4", "reasoning_in_answer"),
        ("</think>4", "reasoning_in_answer"),
        ("<|begin_of_solution|>4", "reasoning_in_answer"),
    ],
)
def test_an_answer_of_its_own_column(answer, expected):
    for columns in (APART, DIRECT):
        row = of(columns, {"q": QUESTION, "t": "so", "a": answer})
        assert (row.answer if isinstance(row, Row) else row.reason) == expected


def test_thought_tags_are_told_at_the_beginning_of_a_reply():
    assert in_thought_tags("\n<|begin_of_thought|>a<|end_of_thought|>")
    assert not in_thought_tags("<think><|begin_of_thought|></think>")
