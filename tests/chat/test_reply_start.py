"""Text that every reply begins with: in the prompt, and never learned."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.assets import asset
from pipeline.chat import Encoder, Exchange, chat_format, conversation_of, exchange_of
from tests.chat.texts import ATTACKS, TEXTS

FORMAT = chat_format("llama3.2-reasoning")
ENCODER = Encoder(asset("data/tiny-llama/tokenizer.json"), FORMAT)
START = "Price is $"
PRICES = st.integers(0, 9999).map(str)
QUESTIONS = (TEXTS | ATTACKS).filter(str.strip)


def row(question, answer, system=None):
    return {"system": system, "question": question, "answer": answer, "reply_start": START}


def encoded(each):
    (found,) = ENCODER.examples([exchange_of(each)])
    return found


def test_one_example_in_full():
    found = encoded(row("A blue cup.", "27"))
    assert ENCODER.text_of(found.ids[: found.target_start]) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nA blue cup.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nPrice is $"
    )
    assert ENCODER.text_of(found.ids[found.target_start :]) == "27<|eot_id|>"
    assert [label for label in found.labels() if label >= 0] == list(found.ids[-2:])


@given(question=QUESTIONS, price=PRICES, system=st.none() | QUESTIONS)
def test_supervised_are_exactly_the_number_and_the_end_of_turn(question, price, system):
    found = encoded(row(question, price, system))
    supervised = found.ids[found.target_start :]
    assert supervised == (*ENCODER.content_ids(price), ENCODER.end_of_turn_id)


@given(question=QUESTIONS, price=PRICES, system=st.none() | QUESTIONS)
def test_a_model_is_asked_by_the_very_ids_before_what_it_learned(question, price, system):
    each = row(question, price, system)
    found = encoded(each)
    asked = conversation_of(each)
    assert tuple(ENCODER.prompt(asked)) == found.ids[: found.target_start]
    assert ENCODER.prompt(asked) == ENCODER.prompt(asked, thinking=False)


def test_an_answer_that_joins_the_start_is_no_example():
    """Ten to ninety-nine are one token here: the 1 that was given would not be there."""
    exchange = Exchange(None, "How many?", None, "2 pens", "It is 1")
    assert ENCODER.examples([exchange]) == [None]


def test_rows_with_and_without_a_start_are_encoded_side_by_side():
    plain = Exchange(None, "How many?", None, "27")
    given = Exchange(None, "How many?", None, "27", START)
    thought = Exchange(None, "How many?", "Two.", "27")
    together = ENCODER.examples([plain, given, thought, given])
    assert together == [ENCODER.examples([each])[0] for each in (plain, given, thought, given)]
    texts = [ENCODER.text_of(each.ids[: each.target_start]) for each in together]
    assert [text.endswith(START) for text in texts] == [False, True, False, True]
    assert ["</think>" in text for text in texts] == [True, False, False, False]


@given(text=TEXTS, most=st.integers(1, 20))
def test_a_beginning_has_no_more_tokens_than_asked_for(text, most):
    kept = ENCODER.beginning(text, most)
    assert text.startswith(kept)
    assert len(ENCODER.content_ids(kept)) <= most
    if len(ENCODER.content_ids(text)) <= most:
        assert kept == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [("It is red. It is big and blue.", "It is red."), ("one\ntwo three four", "one")],
)
def test_a_beginning_ends_with_a_sentence_or_line_where_one_is_near(text, kept):
    assert ENCODER.beginning(text, len(ENCODER.content_ids(text)) - 2) == kept
