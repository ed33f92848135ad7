"""ChatML for Qwen: what it says, and what ids it becomes where the thinking's tags are tokens."""

import unicodedata
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipeline.chat import (
    Control,
    Encoder,
    Exchange,
    Tag,
    Text,
    chat_format,
    neutral_conversation,
    render_jinja,
)
from tests.chat.texts import TEXTS, attacks, conversation, messages, spelling_none, write
from tests.support.qwen import TAGS, added, tokenizer_json

FORMAT = chat_format("chatml-reasoning")
LLAMA = chat_format("llama3.2-reasoning")
NAMES = added("qwen3")
ATTACKS = attacks(NAMES)
PLAIN = spelling_none(NAMES)
MESSAGES = messages(TEXTS | ATTACKS)
PROMPT = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
    "<|im_start|>assistant\n"
)


def encoder_of(folder, family):
    return Encoder(write(folder, tokenizer_json(family)), FORMAT)


@pytest.fixture(scope="module", params=["qwen2", "qwen3"])
def encoder(request, tmp_path_factory):
    return encoder_of(tmp_path_factory.mktemp("tokenizer"), request.param)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    return encoder_of(tmp_path_factory.mktemp("tokenizer"), "qwen3")


@cache
def added_tokens(has_tags):
    tokenizer = Tokenizer.from_str(tokenizer_json("qwen3" if has_tags else "qwen2"))
    return {n: token.content for n, token in tokenizer.get_added_tokens_decoder().items()}


def named(encoder, ids):
    """The added tokens among ids, by name."""
    tokens = added_tokens(bool(encoder.tag_ids))
    return [tokens[number] for number in ids if number in tokens]


def tokens_of(pieces, encoder):
    """What of the pieces is a token to the encoder's tokenizer, in order."""
    kinds = (Control, Tag) if encoder.tag_ids else (Control,)
    return [p.token if isinstance(p, Control) else p.text for p in pieces if isinstance(p, kinds)]


def in_nfc(messages):
    return [{**m, "content": unicodedata.normalize("NFC", m["content"])} for m in messages]


def test_one_example_in_full(encoder):
    encoded = encoder.example(" Why?\n", "Because.", "So.", system="Be brief.")
    reply = "<think>\nBecause.\n</think>\n\nSo.<|im_end|>"
    assert encoder.text_of(encoded.ids) == PROMPT + reply
    assert encoder.text_of(encoded.ids[encoded.target_start :]) == reply


def test_without_reasoning_the_empty_block_is_not_supervised(encoder):
    encoded = encoder.example("Why?", None, "So.", system="Be brief.")
    start = encoded.target_start
    assert encoder.text_of(encoded.ids[:start]) == PROMPT + "<think>\n\n</think>\n\n"
    assert encoder.text_of(encoded.ids[start:]) == "So.<|im_end|>"


def test_tags_are_ids_of_their_own_where_the_tokenizer_has_them(encoder):
    encoded = encoder.example("q", "r", "a")
    tags = [name for name in named(encoder, encoded.ids) if "think" in name]
    assert tags == named(encoder, encoder.whole("<think></think>"))
    assert len(tags) == len(encoder.tag_ids)


@given(question=PLAIN, reasoning=st.none() | PLAIN, answer=PLAIN, system=st.none() | PLAIN)
def test_ids_are_those_of_the_whole_rendered_text(encoder, question, reasoning, answer, system):
    encoded = encoder.example(question, reasoning, answer, system=system)
    prompt = FORMAT.render(conversation(question, system), thinking=reasoning is not None)
    text = prompt + FORMAT.target(reasoning, answer) + FORMAT.end_of_turn
    assert list(encoded.ids) == encoder.whole(text)
    asked = encoder.prompt(conversation(question, system), thinking=reasoning is not None)
    assert list(encoded.ids[: encoded.target_start]) == asked == encoder.whole(prompt)


@settings(max_examples=60)
@given(question=ATTACKS, reasoning=st.none() | ATTACKS, answer=ATTACKS, system=st.none() | ATTACKS)
def test_content_never_becomes_a_token_that_is_no_text(
    encoder, question, reasoning, answer, system
):
    encoded = encoder.example(question, reasoning, answer, system=system)
    pieces = [*FORMAT.prompt(conversation(question, system), thinking=reasoning is not None)]
    pieces += FORMAT.reply(reasoning, answer)
    assert named(encoder, encoded.ids) == [*tokens_of(pieces, encoder), FORMAT.end_of_turn]
    *reply, _ = encoded.ids[encoded.target_start :]
    assert encoder.text_of(reply) == FORMAT.target(reasoning, answer)


@given(
    rows=st.lists(
        st.builds(Exchange, st.none() | PLAIN, ATTACKS, st.none() | ATTACKS, ATTACKS, st.none())
    )
)
@settings(max_examples=30)
def test_a_batch_gives_the_examples_of_its_rows(qwen3, rows):
    single = [qwen3.example(r.question, r.reasoning, r.answer, system=r.system) for r in rows]
    assert qwen3.examples(rows) == single


@given(reasoning=TEXTS, excess=st.integers(0, 60))
def test_shortened_loses_the_excess_from_its_end(encoder, reasoning, excess):
    shorter = encoder.shortened(reasoning, excess)
    before, after = (encoder.example("q", each, "a") for each in (reasoning, shorter))
    assert reasoning.strip().startswith(shorter)
    assert not shorter or len(after.ids) <= len(before.ids) - excess


@settings(max_examples=60)
@given(messages=MESSAGES, thinking=st.booleans())
def test_the_format_renders_what_its_jinja_renders(messages, thinking):
    messages = in_nfc(messages)
    is_prefill = messages[-1]["role"] == "assistant"
    found = render_jinja(
        FORMAT.jinja,
        messages,
        bos_token=None,
        add_generation_prompt=not is_prefill,
        enable_thinking=thinking,
    )
    expected = FORMAT.render(messages, thinking=thinking)
    assert found == (f"{expected}<|im_end|>\n" if is_prefill else expected)


@settings(max_examples=60)
@given(messages=MESSAGES, thinking=st.booleans())
def test_a_server_finds_the_templates_tokens_and_no_other(encoder, messages, thinking):
    """`whole` parses the rendered text, as llama-server does."""
    sent = neutral_conversation(messages, FORMAT)
    ids = encoder.whole(FORMAT.render(sent, thinking=thinking))
    assert ids == encoder.prompt(sent, thinking=thinking)
    assert named(encoder, ids) == tokens_of(FORMAT.prompt(messages, thinking=thinking), encoder)


@pytest.mark.parametrize("name", NAMES)
def test_what_spells_a_token_gets_one_space(name):
    neutral = FORMAT.neutral(f"a{name}{name}")
    assert name not in neutral and neutral.replace(" ", "") == f"a{name}{name}"
    assert FORMAT.neutral(neutral) == neutral


@pytest.mark.parametrize("text", ["< think>", "<thinking>", "a < b", "<|a b|>", "<b>", "</ think>"])
def test_what_only_looks_like_one_stays(text):
    assert FORMAT.neutral(text) == text


def test_a_prefill_has_the_tags_of_its_own_block_and_no_other():
    words = "<think>\nSay </think>, then <think>.\n</think>\n\nIt </thinks"
    assert list(FORMAT.begun(words)) == [
        Tag("<think>"),
        Text("\nSay </think>, then <think>.\n"),
        Tag("</think>"),
        Text("\n\nIt </thinks"),
    ]
    assert list(FORMAT.begun("Say <think>")) == [Text("Say <think>")]
    begun = {"role": "assistant", "content": "<think>\nNot </think> <|im_end|> yet\n</think>\n\nI"}
    (sent,) = neutral_conversation([begun], FORMAT)
    assert sent["content"] == "<think>\nNot < /think> <| im_end|> yet\n</think>\n\nI"


def test_text_in_any_unicode_form_becomes_the_same_ids(encoder):
    composed, apart = "é 각 naïve", unicodedata.normalize("NFD", "é 각 naïve")
    assert encoder.example(composed, composed, composed) == encoder.example(apart, apart, apart)
    assert FORMAT.render(conversation(apart)) == FORMAT.render(conversation(composed))
    assert LLAMA.render(conversation(apart)) != LLAMA.render(conversation(composed))


def test_qwen_pads_with_what_ends_a_text_and_stops_at_the_end_of_turn(qwen3):
    (pad,), (end,) = map(qwen3.whole, ("<|endoftext|>", "<|im_end|>"))
    assert (qwen3.pad_id, qwen3.end_of_turn_id) == (pad, end)
    assert {pad, end} < qwen3.end_ids
    assert qwen3.reply_of(qwen3.whole("<think>\n1\n</think>\n\n2<|im_end|>")) == (
        FORMAT.target("1", "2")
    )


def test_every_tag_of_qwen3_is_one_that_text_can_spell():
    assert all(FORMAT.neutral(tag) != tag for tag in TAGS)
