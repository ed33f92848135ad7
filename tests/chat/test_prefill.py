"""A conversation that ends with the assistant's words is gone on with, as servers do it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.assets import asset
from pipeline.chat import Control, Encoder, Text, render_jinja
from tests.chat.texts import ASKED, ATTACKS, CONTROL, FORMAT, MESSAGES, TEXTS

ENCODER = Encoder(asset("data/tiny-llama/tokenizer.json"), FORMAT)
QUESTION = {"role": "user", "content": "How many?"}
THINKING = "<think>\nTwo and two is"


def begun(content):
    return {"role": "assistant", "content": content}


PREFILLED = st.builds(lambda asked, words: [*asked, begun(words)], ASKED, TEXTS | ATTACKS)


def test_a_prefill_in_full():
    assert FORMAT.render([QUESTION, begun(f" {THINKING}\n")]) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHow many?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n<think>\nTwo and two is"
    )


@given(messages=PREFILLED, thinking=st.booleans())
def test_a_prefill_is_the_whole_conversation_by_jinja_up_to_its_end_of_turn(messages, thinking):
    whole = render_jinja(FORMAT.jinja, messages, bos_token=FORMAT.bos, add_generation_prompt=False)
    assert FORMAT.render(messages, thinking=thinking) + FORMAT.end_of_turn == whole


@given(messages=PREFILLED)
def test_a_prefill_is_the_generation_prompt_and_the_words(messages):
    *asked, last = messages
    assert FORMAT.render(messages) == FORMAT.render(asked) + last["content"].strip()


@given(messages=PREFILLED)
def test_ids_of_a_prefill_hold_the_control_tokens_of_the_turns_alone(messages):
    ids = ENCODER.prompt(messages)
    pieces = list(FORMAT.prompt(messages))
    expected = [ENCODER.whole(piece.token)[0] for piece in pieces if isinstance(piece, Control)]
    assert [i for i in ids if i in ENCODER.control_ids] == expected
    assert ENCODER.text_of(ids) == FORMAT.render(messages)


@given(messages=PREFILLED.filter(lambda all: not any(CONTROL.search(m["content"]) for m in all)))
def test_ids_of_a_prefill_are_those_of_its_whole_text(messages):
    assert ENCODER.prompt(messages) == ENCODER.whole(FORMAT.render(messages))


def test_a_prefill_and_its_header_are_one_piece():
    """Llama's tokenizer joins line ends with what follows, as in training."""
    *_, last = FORMAT.prompt([QUESTION, begun("It is")])
    assert last == Text("\n\nIt is")


def test_an_empty_prefill_is_a_generation_prompt():
    assert FORMAT.render([QUESTION, begun(" ")], thinking=False) == FORMAT.render([QUESTION])


def test_an_earlier_reply_shows_its_answer_and_a_prefill_its_thinking():
    words = FORMAT.target("Two and two.", "It is 4.")
    shown = FORMAT.shown([QUESTION, begun(words), QUESTION, begun(words)])
    assert [m["content"] for m in shown] == ["How many?", "It is 4.", "How many?", words]


@given(messages=MESSAGES)
def test_what_is_shown_renders_to_the_same_prompt(messages):
    assert FORMAT.render(FORMAT.shown(messages)) == FORMAT.render(messages)


@pytest.mark.e2e
def test_transformers_goes_on_with_the_same_text_and_ids():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(asset("data/tiny-llama"))
    tokenizer.chat_template = FORMAT.jinja
    for words in ("It is", f" {THINKING}\n", "<think>\nTwo.\n</think>\n\nIt is", "合計は 🦙"):
        for head in ([QUESTION], [QUESTION, begun(FORMAT.target("1", "2")), QUESTION]):
            messages = [*head, begun(words)]
            for thinking in (True, False):
                text = tokenizer.apply_chat_template(
                    messages,
                    tokenize=False,
                    continue_final_message=True,
                    enable_thinking=thinking,
                )
                assert FORMAT.render(messages, thinking=thinking) == text
                theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
                assert ENCODER.prompt(messages, thinking=thinking) == theirs
