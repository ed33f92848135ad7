"""Chats, candidates, flags, conditions and paths of a record."""

import math

import pytest

from pipeline.data.read.rows import Reject, Row, required
from pipeline.recipe import Columns
from tests.data.records import (
    CHAT,
    INLINE,
    PICK,
    QUESTION,
    REPLY,
    chat,
    of,
    parts,
    pick,
    reason,
    think,
)


def test_a_chat_may_say_from_and_value_and_have_unused_keys_filled_with_null():
    turns = [
        {"from": "human", "value": "Hi", "role": None, "content": None},
        {"from": "gpt", "value": REPLY, "role": None, "content": None},
    ]
    assert parts(of(CHAT, {"m": turns})) == ("Hi", "Two and two is four.", "The answer is 4.")


def test_an_empty_system_message_is_none():
    assert chat(("system", " \n"), ("user", "Hi"), ("assistant", REPLY)).system is None


def test_a_system_column_serves_chats_without_a_system_turn():
    columns = Columns(messages="m", system="s")
    turns = (("user", "Hi"), ("assistant", REPLY))
    assert chat(*turns, columns=columns, s="Be brief.").system == "Be brief."
    assert chat(("system", "Sing."), *turns, columns=columns, s="Be brief.").system == "Sing."
    assert chat(*turns, columns=columns).system is None


@pytest.mark.parametrize(
    ("expected", "messages"),
    [
        ("not_one_exchange", []),
        ("not_one_exchange", [("user", "Hi")]),
        ("not_one_exchange", [("user", "Hi"), ("assistant", REPLY)] * 2),
        ("not_one_exchange", [("user", "Hi"), ("assistant", "Hm"), ("assistant", REPLY)]),
        ("not_one_exchange", [("assistant", REPLY), ("user", "Hi")]),
        ("not_one_exchange", [("tool", "x"), ("user", "Hi"), ("assistant", REPLY)]),
        ("not_one_exchange", [("user", "Hi"), (["assistant"], REPLY)]),
        ("not_text", [("user", None), ("assistant", REPLY)]),
        ("not_text", [("system", 3), ("user", "Hi"), ("assistant", REPLY)]),
        ("not_text", [("user", "Hi"), ("assistant", None)]),
    ],
)
def test_reject_reasons_of_messages(expected, messages):
    assert reason(chat(*messages)) == expected


@pytest.mark.parametrize("messages", [None, "Hi", ["Hi", REPLY], {"role": "user"}, [None]])
def test_a_chat_that_is_no_list_of_turns_is_not_text(messages):
    assert reason(of(CHAT, {"m": messages})) == "not_text"


def test_a_reply_beside_the_chat_needs_a_chat_that_ends_with_the_user():
    columns = Columns(messages="m", reasoning="t", answer="a")
    apart = {"t": "so", "a": "4"}
    assert parts(chat(("user", "Hi"), columns=columns, **apart)) == ("Hi", "so", "4")
    row = chat(("user", "Hi"), ("assistant", "Ho"), columns=columns, **apart)
    assert reason(row) == "not_one_exchange"


def test_the_chat_named_again_as_answer_gives_its_last_turn_as_a_direct_answer():
    columns = Columns(messages="m", answer="m")
    assert parts(chat(("user", "Hi"), ("assistant", "Ho"), columns=columns)) == ("Hi", None, "Ho")
    assert reason(chat(("user", "Hi"), ("assistant", REPLY), columns=columns)) == (
        "reasoning_in_answer"
    )


@pytest.mark.parametrize(
    ("ok", "also_ok", "expected"),
    [
        ([True, False, True], None, "1"),
        ([False, True, True], None, "2"),
        ([False, None, True], None, "3"),
        ([False, False, False], [False, True, False], "2"),
        ([False, False, True], [True, True, False], "3"),
        (None, ["no", "No", " YES "], "3"),
        ([0, 1, 0], [None, None, None], "2"),
        (["incorrect", "Correct", "maybe"], None, "2"),
        ([False, False, False], None, "incorrect"),
        ([None, None, None], [None, None, None], "incorrect"),
        (None, None, "bad_flags"),
        ([True, True], None, "bad_flags"),
        ([True, True, True], [True], "bad_flags"),
        ([], None, "bad_flags"),
        (True, None, "1"),
        (False, None, "incorrect"),
    ],
)
def test_the_first_candidate_that_the_most_trusted_flag_calls_correct_is_taken(
    ok, also_ok, expected
):
    row = pick([think("1"), think("2"), think("3")], ok, also_ok)
    assert (row.answer if isinstance(row, Row) else row.reason) == expected


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        ([False, True], "2"),
        ([None, True], "2"),
        ([False, False], "incomplete"),
        ([True], "bad_flags"),
        (True, "1"),
        (False, "incomplete"),
        ("perhaps", "bad_flags"),
    ],
)
def test_a_candidate_must_be_complete(whole, expected):
    row = pick([think("1"), think("2")], [True, True], whole=whole)
    assert (row.answer if isinstance(row, Row) else row.reason) == expected


def test_a_malformed_candidate_gives_way_to_the_next():
    assert pick([None, "<think>1", think("3")], [True] * 3).answer == "3"
    assert reason(pick(["<think>1", None], [True] * 2)) == "unclosed_block"
    assert reason(pick([], [])) == "empty_answer"


def test_candidates_that_are_no_list_are_not_text():
    for candidates in (None, "<think>a</think>b", {"0": think("1")}):
        record = {"q": QUESTION, "c": candidates, "ok": [True], "also_ok": None, "whole": [True]}
        assert reason(of(PICK, record)) == "not_text"


def test_without_flags_the_first_well_formed_candidate_is_taken():
    assert pick(["<think>1", think("2")], [False, False], correct=False).answer == "2"
    assert pick([think("1")], None, None, whole=[False], correct=False).answer == "1"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, None),
        ({"ok": "No"}, "incorrect"),
        ({"ok": 0}, "incorrect"),
        ({"ok": False, "also_ok": True}, None),
        ({"ok": False, "also_ok": None}, "incorrect"),
        ({"ok": "unsure"}, None),
        ({"ok": 7}, None),
        ({"whole": False}, "incomplete"),
        ({"whole": None}, None),
        ({"ok": [True]}, "bad_flags"),
    ],
)
def test_flags_of_a_single_reply_reject_only_what_they_deny(flags, expected):
    columns = Columns(question="q", reply="r", correct=("ok", "also_ok"), complete="whole")
    record = {"q": QUESTION, "r": REPLY, "ok": None, "also_ok": None, "whole": None} | flags
    row = of(columns, record)
    assert (row.reason if isinstance(row, Reject) else None) == expected
    assert isinstance(of(columns, record, correct=False), Row)


@pytest.mark.parametrize(
    ("value", "selected"),
    [
        ("R1", True),
        ("r1", False),
        (3, True),
        (True, True),
        (None, False),
        (["R1"], False),
        ({}, False),
        (math.nan, False),
    ],
)
def test_where_takes_records_with_one_of_the_values(value, selected):
    columns = Columns(question="q", reply="r", where={"model": ("R1", "3", "true")})
    row = of(columns, {"q": QUESTION, "r": REPLY, "model": value})
    assert isinstance(row, Row) if selected else reason(row) == "not_selected"


@pytest.mark.parametrize(
    ("info", "reference"),
    [({"gold": "4"}, "4"), ({"gold": None}, None), ({}, None), (None, None), ([1], None)],
)
def test_dotted_paths_walk_mappings_and_lists(info, reference):
    columns = Columns(question="m.0.content", reply="m.1.content", reference="m.0.info.gold")
    turns = [{"content": "Hi", "info": info}, {"content": REPLY}]
    assert of(columns, {"m": turns}).reference == reference


@pytest.mark.parametrize("path", ["m.2", "m.x", "m.²", "m.0.0.0", "m.99999999999999", "m."])
def test_a_path_that_leads_nowhere_gives_none(path):
    assert reason(of(Columns(question=path, reply="r"), {"m": [[]], "r": REPLY})) == "not_text"


def test_a_record_must_have_the_columns_that_are_not_optional():
    columns = Columns(
        messages="m.0",
        system="s",
        reasoning="t",
        answer="a.text",
        correct=("ok",),
        complete="whole",
        reference="gold",
        id="id",
        source="src",
        where={"model.name": ("R1",)},
    )
    assert required(columns) == {"m", "t", "a", "ok", "whole", "model"}
    reject = of(INLINE, {"q": QUESTION, "source": "numina"})
    assert (reason(reject), reject.source) == ("missing_column", "numina")
    assert isinstance(of(INLINE, {"q": QUESTION, "r": REPLY}), Row)
