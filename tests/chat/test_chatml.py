"""ChatML for Qwen: what it says, and what ids it becomes where the thinking's tags are tokens."""

import re
import unicodedata
from functools import cache
from pathlib import Path

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
    check_fit,
    fastest,
    format_for,
    neutral_conversation,
    render_jinja,
)
from pipeline.errors import PipeError
from tests.chat.test_encode import ROLES, TEXTS, conversation
from tests.support.qwen import TAGS, added, tokenizer_json
from tests.support.tokenizer import tokenizer_json as llama3_json

FORMAT = chat_format("chatml-reasoning")
LLAMA = chat_format("llama3.2-reasoning")
NAMES = added("qwen3")
SPELLED = re.compile("|".join(map(re.escape, NAMES)))
OFFICIAL = Path(__file__).parents[1] / "support"
"""The templates of Qwen3-0.6B and Qwen2.5-7B-Instruct, as published."""

SLICES = st.sampled_from(NAMES).flatmap(
    lambda name: st.integers(0, len(name)).map(lambda cut: (name[:cut], name[cut:]))
)
ATTACKS = st.lists(
    st.sampled_from(NAMES) | SLICES.map("".join) | SLICES.map(lambda s: s[0]) | TEXTS, max_size=8
).map("".join)
PLAIN = TEXTS.filter(lambda text: not SPELLED.search(unicodedata.normalize("NFC", text)))
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": TEXTS | ATTACKS}), min_size=1, max_size=5
)
PROMPT = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
    "<|im_start|>assistant\n"
)


def encoder_of(folder, family):
    path = folder / "tokenizer.json"
    path.write_text(tokenizer_json(family), encoding="utf-8")
    return Encoder(path, FORMAT)


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


TURNS = [
    {"role": "user", "content": "How many is 12 and 30?"},
    {"role": "assistant", "content": "<think>\nTwelve and thirty.\n</think>\n\nIt is 42."},
    {"role": "user", "content": "And 5 more?"},
]
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
SAME = [TURNS[:1], TURNS, [SYSTEM, *TURNS], [SYSTEM, TURNS[0]]]


def official(name, messages, **variables):
    template = (OFFICIAL / f"{name}.jinja").read_text(encoding="utf-8")
    return render_jinja(template, messages, bos_token=None, **variables)


@pytest.mark.parametrize("messages", SAME)
@pytest.mark.parametrize("thinking", [True, False])
def test_qwen3s_own_template_gives_the_same_prompt(messages, thinking):
    theirs = official("qwen3", messages, add_generation_prompt=True, enable_thinking=thinking)
    assert FORMAT.render(messages, thinking=thinking) == theirs


def test_qwen3s_own_template_gives_the_same_training_text():
    reply = {"role": "assistant", "content": FORMAT.target("Forty-two and 5.", "It is 47.")}
    theirs = official("qwen3", [*TURNS, reply], add_generation_prompt=False)
    assert f"{FORMAT.render(TURNS)}{reply['content']}<|im_end|>\n" == theirs


@settings(max_examples=40)
@given(question=PLAIN, answer=PLAIN, again=PLAIN)
def test_qwen3s_own_template_agrees_on_any_plain_text(question, answer, again):
    turns = zip(("user", "assistant", "user"), (question, answer, again), strict=True)
    messages = [{"role": role, "content": content} for role, content in turns]
    shown = FORMAT.shown(messages)
    assert FORMAT.render(messages) == official("qwen3", shown, add_generation_prompt=True)


def test_qwen2_5s_own_template_gives_the_same_prompt_but_for_the_system_message_it_makes_up():
    plain = [TURNS[0], {"role": "assistant", "content": "It is 42."}, TURNS[2]]
    told = official("qwen2.5", [SYSTEM, *plain], add_generation_prompt=True)
    assert FORMAT.render([SYSTEM, *plain]) == told
    made_up = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
    theirs = official("qwen2.5", plain, add_generation_prompt=True)
    assert theirs == f"{made_up}assistant.<|im_end|>\n{FORMAT.render(plain)}"


def write(folder, text):
    path = folder / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "format"),
    [
        (llama3_json(), LLAMA),
        (tokenizer_json("qwen2"), FORMAT),
        (tokenizer_json("qwen3"), FORMAT),
    ],
)
def test_a_tokenizer_has_one_format_and_the_other_is_refused_with_the_cure(tmp_path, text, format):
    path = write(tmp_path, text)
    assert format_for(path) is format
    check_fit(path, format)
    other = LLAMA if format is FORMAT else FORMAT
    for refuse in (check_fit, Encoder):
        with pytest.raises(PipeError, match=rf"has no token.*\n.*chat\.format={format.name}"):
            refuse(path, other)


def test_a_tokenizer_of_another_family_has_none(tmp_path):
    path = write(tmp_path, llama3_json().replace("<|eot_id|>", "<|end|>"))
    with pytest.raises(PipeError, match="Use a Llama 3, Qwen2 or Qwen3 base"):
        format_for(path)
    with pytest.raises(PipeError, match="cannot be read"):
        format_for(tmp_path / "none.json")


def test_a_missing_pad_is_named(tmp_path):
    text = tokenizer_json("qwen3").replace("<|endoftext|>", "<|end|>")
    with pytest.raises(PipeError, match=re.escape("has no token <|endoftext|>")):
        _ = Encoder(write(tmp_path, text), FORMAT).pad_id


def test_the_faster_encoders_are_for_llama_3_and_qwen_gets_its_own(tmp_path):
    found = fastest(write(tmp_path, tokenizer_json("qwen3")))
    assert (found.backend, bool(found.reason)) == ("tokenizers", True)


def test_qwen_pads_with_what_ends_a_text_and_stops_at_the_end_of_turn(qwen3):
    (pad,), (end,) = map(qwen3.whole, ("<|endoftext|>", "<|im_end|>"))
    assert (qwen3.pad_id, qwen3.end_of_turn_id) == (pad, end)
    assert {pad, end} < qwen3.end_ids
    assert qwen3.reply_of(qwen3.whole("<think>\n1\n</think>\n\n2<|im_end|>")) == (
        FORMAT.target("1", "2")
    )


def test_runs_made_with_llamas_format_stay_what_they_are():
    assert LLAMA.fingerprint()["sha256"].startswith("49deb58d7d171aca")
    assert FORMAT.fingerprint() != LLAMA.fingerprint()


def test_every_tag_of_qwen3_is_one_that_text_can_spell():
    assert all(FORMAT.neutral(tag) != tag for tag in TAGS)
