"""What text and what ids a row becomes: properties over generated conversations."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipeline.chat import Control, Encoder, Exchange, render_jinja
from pipeline.errors import PipeError
from tests.chat.texts import (
    ASKED,
    ATTACKS,
    FORMAT,
    PLAIN,
    REASONING,
    SYSTEM,
    TEXTS,
    completed,
    conversation,
)
from tests.support.tokenizer import SPECIALS, tokenizer_json


@pytest.fixture(scope="module", params=["tokenizers", "tiktoken"])
def encoder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(completed(tokenizer_json()), encoding="utf-8")
    encoder = Encoder(path, FORMAT, backend=request.param)
    assert encoder.backend == request.param
    return encoder


def added_ids():
    tokenizer = Tokenizer.from_str(tokenizer_json())
    return {tokenizer.token_to_id(name): name for name in SPECIALS}


def test_one_example_in_full(encoder):
    encoded = encoder.example(" Why?\n", "Because.", "So.", system="Be brief.")
    assert encoder.text_of(encoded.ids) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        "<think>\nBecause.\n</think>\n\nSo.<|eot_id|>"
    )
    supervised = encoded.ids[encoded.target_start :]
    assert encoder.text_of(supervised) == "<think>\nBecause.\n</think>\n\nSo.<|eot_id|>"
    assert encoded.labels() == [-100] * encoded.target_start + list(supervised)


def test_without_reasoning_the_empty_block_is_not_supervised(encoder):
    encoded = encoder.example("Why?", None, "So.")
    assert encoder.text_of(encoded.ids[: encoded.target_start]).endswith("<think>\n\n</think>\n\n")
    assert encoder.text_of(encoded.ids[encoded.target_start :]) == "So.<|eot_id|>"


@given(question=PLAIN, reasoning=REASONING, answer=PLAIN, system=SYSTEM)
def test_ids_are_those_of_the_whole_rendered_text(encoder, question, reasoning, answer, system):
    encoded = encoder.example(question, reasoning, answer, system=system)
    prompt = FORMAT.render(conversation(question, system), thinking=reasoning is not None)
    text = prompt + FORMAT.target(reasoning, answer) + FORMAT.end_of_turn
    assert list(encoded.ids) == encoder.whole(text)


@given(question=TEXTS, reasoning=st.none() | TEXTS, answer=TEXTS, system=st.none() | TEXTS)
def test_the_generation_prompt_is_what_comes_before_the_target(
    encoder, question, reasoning, answer, system
):
    encoded = encoder.example(question, reasoning, answer, system=system)
    prompt = encoder.prompt(conversation(question, system), thinking=reasoning is not None)
    assert list(encoded.ids[: encoded.target_start]) == prompt


@given(question=ATTACKS, reasoning=st.none() | ATTACKS, answer=ATTACKS, system=st.none() | ATTACKS)
def test_supervised_are_exactly_the_reply_and_the_end_of_turn(
    encoder, question, reasoning, answer, system
):
    encoded = encoder.example(question, reasoning, answer, system=system)
    *reply, end = encoded.ids[encoded.target_start :]
    assert encoder.text_of(reply) == FORMAT.target(reasoning, answer)
    assert end == encoder.end_of_turn_id


@settings(max_examples=200)
@given(question=ATTACKS, reasoning=st.none() | ATTACKS, answer=ATTACKS, system=st.none() | ATTACKS)
def test_content_never_becomes_a_control_token(encoder, question, reasoning, answer, system):
    encoded = encoder.example(question, reasoning, answer, system=system)
    added = added_ids()
    turns = FORMAT.prompt(conversation(question, system), thinking=reasoning is not None)
    expected = [piece.token for piece in turns if isinstance(piece, Control)]
    found = [added[number] for number in encoded.ids if number in added]
    assert found == [*expected, FORMAT.end_of_turn]


@pytest.mark.parametrize("name", SPECIALS)
def test_each_control_token_in_each_place_stays_text(encoder, name):
    half = len(name) // 2
    forms = [name, name[:half] + name + name[half:], f" {name}\n", name * 3, f"<{name}>"]
    for form in forms:
        encoded = encoder.example(form, form, form, system=form)
        plain = encoder.example("a", "a", "a", system="a")
        added = added_ids()
        assert [i for i in encoded.ids if i in added] == [i for i in plain.ids if i in added]
        assert encoder.text_of(encoded.ids).count(form.strip()) >= 4


EXCHANGES = st.lists(
    st.builds(Exchange, SYSTEM, ATTACKS, st.none() | ATTACKS, ATTACKS, st.none()), max_size=3
)


@given(rows=EXCHANGES)
def test_a_batch_gives_the_examples_of_its_rows(encoder, rows):
    single = [
        encoder.example(row.question, row.reasoning, row.answer, system=row.system) for row in rows
    ]
    assert encoder.examples(rows) == single


def test_a_reply_that_joins_the_prompt_is_no_example(encoder, monkeypatch):
    rows = [
        Exchange(None, "q", "r", "a"),
        Exchange(None, "q", None, "b"),
        Exchange("", "q", "", ""),
    ]
    monkeypatch.setitem(encoder._prefixes, (False, None), [0])
    taken = [encoded is not None for encoded in encoder.examples(rows)]
    assert taken == [True, False, True]
    with pytest.raises(ValueError, match="token boundary"):
        encoder.example("q", None, "b")


@given(text=TEXTS | ATTACKS)
def test_content_is_decoded_to_itself(encoder, text):
    assert encoder.text_of(encoder.content_ids(text)) == text


@given(question=ATTACKS, reasoning=st.none() | ATTACKS, answer=ATTACKS, system=st.none() | ATTACKS)
def test_labels_are_ignored_up_to_the_reply_and_the_ids_from_there(
    encoder, question, reasoning, answer, system
):
    encoded = encoder.example(question, reasoning, answer, system=system)
    labels = encoded.labels(ignore=-1)
    assert len(labels) == len(encoded.ids)
    assert labels[: encoded.target_start] == [-1] * encoded.target_start
    assert tuple(labels[encoded.target_start :]) == encoded.ids[encoded.target_start :]
    assert -1 not in labels[encoded.target_start :]


@given(reasoning=TEXTS, excess=st.integers(0, 60), answer=PLAIN)
def test_shortened_loses_the_excess_from_its_end(encoder, reasoning, excess, answer):
    shorter = encoder.shortened(reasoning, excess)
    before = encoder.example("q", reasoning, answer)
    after = encoder.example("q", shorter, answer)
    assert reasoning.strip().startswith(shorter)
    assert shorter == shorter.strip()
    assert not shorter or len(after.ids) <= len(before.ids) - excess
    assert excess or shorter == reasoning.strip()


@pytest.mark.parametrize(
    ("reasoning", "shorter"),
    [
        ("One is one.\nTwo is two, and", "One is one."),
        ("One is one. Two is 2.5 or so", "One is one."),
        ('He said "yes!" Then 1.5', 'He said "yes!"'),
        ("一加一等于二。然后🙂🙂", "一加一等于二。"),
        ("🙂🙂🙂🙂", "🙂🙂🙂"),
        ("no", ""),
    ],
)
def test_shortened_ends_with_a_line_or_sentence_else_a_character(encoder, reasoning, shorter):
    assert encoder.shortened(reasoning, 2) == shorter


def test_shortened_keeps_what_is_far_from_the_cut(encoder):
    reasoning = "First. " + "word " * 500
    assert len(encoder.shortened(reasoning, 10)) > 2400
    assert encoder.shortened(reasoning, 100_000) == ""


def test_a_tokenizer_that_truncates_and_pads_does_neither_here(tmp_path):
    tokenizer = Tokenizer.from_str(tokenizer_json())
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = Encoder(tmp_path / "tokenizer.json", FORMAT)
    text = "There are 12 pens in the box." * 20
    assert (
        encoder.text_of(encoder.content_ids(text)) == encoder.text_of(encoder.whole(text)) == text
    )


def test_a_lone_surrogate_is_refused(encoder):
    with pytest.raises(TypeError):
        encoder.example("q", "a\ud800", "b")


@given(messages=ASKED, thinking=st.booleans())
def test_the_format_renders_what_its_jinja_renders(messages, thinking):
    rendered = render_jinja(
        FORMAT.jinja,
        messages,
        bos_token=FORMAT.bos,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )
    assert FORMAT.render(messages, thinking=thinking) == rendered


@given(question=PLAIN, reasoning=PLAIN, answer=PLAIN)
def test_jinja_of_a_whole_conversation_is_the_training_text(question, reasoning, answer):
    target = FORMAT.target(reasoning, answer)
    messages = [*conversation(question), {"role": "assistant", "content": target}]
    rendered = render_jinja(
        FORMAT.jinja, messages, bos_token=FORMAT.bos, add_generation_prompt=False
    )
    prompt = FORMAT.render(conversation(question))
    assert rendered == prompt + target.strip() + FORMAT.end_of_turn


def test_pad_is_not_the_end_of_turn(encoder):
    assert encoder.pad_id != encoder.end_of_turn_id


def test_a_tokenizer_without_the_control_tokens_is_refused(tmp_path):
    text = tokenizer_json().replace("<|eot_id|>", "<|other|>")
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(PipeError, match=re.escape("has no token <|eot_id|>")):
        Encoder(tmp_path / "tokenizer.json", FORMAT)
