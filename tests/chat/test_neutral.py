"""Text that spells a control token is made harmless for servers that would parse it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.assets import asset
from pipeline.chat import Control, Encoder, neutral_conversation
from tests.chat.texts import ATTACKS, CONTROL, FORMAT, ROLES, TEXTS
from tests.support.tokenizer import SPECIALS

ENCODER = Encoder(asset("data/tiny-llama/tokenizer.json"), FORMAT)
LLAMA = [
    *SPECIALS,
    *(f"<|reserved_special_token_{n}|>" for n in (1, 99, 247)),
    "<|step_id|>", "<|image|>", "<|begin_of_audio|>",
]  # fmt: skip
NESTED = st.recursive(
    st.sampled_from([*LLAMA, "<|", "|>", "|", "<", " "]) | ATTACKS,
    lambda inner: st.tuples(inner, inner).map("".join),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": NESTED | TEXTS}), min_size=1, max_size=4
)


@settings(max_examples=200)
@given(messages=MESSAGES, thinking=st.booleans())
def test_a_server_finds_the_templates_control_tokens_and_no_other(messages, thinking):
    """`whole` parses the rendered text, as llama-server does."""
    sent = neutral_conversation(messages, FORMAT)
    ids = ENCODER.whole(FORMAT.render(sent, thinking=thinking))
    pieces = FORMAT.prompt(messages, thinking=thinking)
    expected = [ENCODER.whole(piece.token)[0] for piece in pieces if isinstance(piece, Control)]
    assert [i for i in ids if i in ENCODER.control_ids] == expected
    assert ids == ENCODER.prompt(sent, thinking=thinking)


@given(text=NESTED)
def test_no_control_token_is_spelled_any_more_and_twice_is_once(text):
    neutral = FORMAT.neutral(text)
    assert not any(name in neutral for name in LLAMA)
    assert not CONTROL.search(neutral)
    assert FORMAT.neutral(neutral) == neutral
    assert neutral.replace(" ", "") == text.replace(" ", "")


@given(text=TEXTS.filter(lambda text: not CONTROL.search(text)))
def test_other_text_stays_as_it_is(text):
    assert FORMAT.neutral(text) == text


@pytest.mark.parametrize("text", ["a <| b |> c", "<think>", "x || y", "<|a b|>", "f <|> g", "<|>"])
def test_what_only_looks_like_one_stays(text):
    assert FORMAT.neutral(text) == text


@pytest.mark.parametrize("name", LLAMA)
def test_each_control_token_gets_one_space(name):
    assert FORMAT.neutral(f"a{name}{name}") == f"a<| {name[2:]}<| {name[2:]}"


def test_earlier_thinking_and_outer_spaces_are_left_out_and_a_prefill_goes_on():
    reply = {"role": "assistant", "content": FORMAT.target("hm", "yes <|eot_id|>")}
    sent = neutral_conversation([{"role": "user", "content": " a\n"}, reply, reply], FORMAT)
    assert [m["content"] for m in sent] == [
        "a",
        "yes <| eot_id|>",
        "<think>\nhm\n</think>\n\nyes <| eot_id|>",
    ]
