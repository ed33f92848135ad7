"""Which rows are dropped for what they say, and which are not."""

import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.read.rows import Row
from pipeline.data.work.filters import checks, first_reason, word_count
from pipeline.recipe import Filters
from tests.data.judged import ALL, ROW, reason, traces

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=400)


def test_a_good_row_is_taken() -> None:
    assert reason() is None
    assert reason(reasoning=None, reference=None) is None
    assert reason(reasoning=traces(20)) is None


def test_the_cheapest_reason_is_named_first() -> None:
    names = [check.reason for check in checks(ALL)]
    assert names == ["too_short", "repetition_loop", "wrong_language", "refuted"]
    both = {"reasoning": "Two.", "answer": "It is 5."}
    assert reason(**both) == "too_short"
    assert reason(Filters(), **both) == "refuted"


def test_a_filter_that_is_off_checks_nothing() -> None:
    assert checks(Filters(repetition=False, verify=False)) == ()


def test_checks_go_to_other_processes() -> None:
    again = pickle.loads(pickle.dumps(checks(ALL)))
    assert first_reason(again, ROW) is None
    assert first_reason(again, replace(ROW, answer="It is 5.")) == "refuted"


def test_only_a_known_reference_refutes() -> None:
    assert reason(answer="It is 5.") == "refuted"
    assert reason(answer="It is 5.", reference=None) is None
    assert reason(Filters(verify=False), answer="It is 5.") is None


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("one two\nthree", 3),
        ("x^2 + 1", 3),
        ("一二三四", 2),
        ("设函数 f(x) 等于三", 4),
        ("こんにちは", 3),
        ("Привет, мир", 2),
        ("안녕 세상", 2),
    ],
)
def test_words_are_counted_in_every_script(text: str, count: int) -> None:
    assert word_count(text) == count


def test_only_reasoning_can_be_too_short() -> None:
    assert reason(reasoning="One two") == "too_short"
    assert reason(reasoning="One two three") is None
    assert reason(reasoning=None) is None


@given(TEXT, TEXT, TEXT, TEXT, st.sampled_from([1, 20]))
@settings(max_examples=100, deadline=None)
def test_any_row_is_judged_and_the_same_way_twice(
    question: str, reasoning: str, answer: str, reference: str, times: int
) -> None:
    row = Row("1", "s", None, question, reasoning * times, answer, reference)
    for languages in (("en",), ("zh", "ja")):
        found = checks(Filters(min_reasoning_words=3, languages=languages))
        assert first_reason(found, row) == first_reason(found, row)


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_not_even_lone_surrogates_raise(text: str) -> None:
    assert first_reason(checks(ALL), replace(ROW, question=text, answer=text, reasoning=text)) in (
        *(check.reason for check in checks(ALL)),
        None,
    )
