"""A format whose model never thinks: no block is learned, given, or waited for."""

import pytest

from pipeline.chat import FORMATS, Encoder, Exchange, chat_format, parse_reply, render_jinja
from tests.support.tokenizer import write_base

ASKED = [{"role": "user", "content": "How many?"}]


@pytest.fixture(params=sorted(FORMATS))
def format(request):
    return chat_format(request.param, thinks=False)


def test_the_prompt_is_the_same_whether_thinking_is_asked_for_or_not(format):
    assert format.render(ASKED, thinking=False) == format.render(ASKED, thinking=True)
    assert format.render(ASKED) == chat_format(format.name).render(ASKED)
    assert format.empty_thinking == ""


def test_no_template_gives_an_empty_block(format):
    given = {"bos_token": format.bos, "add_generation_prompt": True, "enable_thinking": False}
    assert render_jinja(format.jinja, ASKED, **given) == format.render(ASKED)
    thinking = chat_format(format.name).ollama_template
    assert "IsThinkSet" in thinking and "IsThinkSet" not in format.ollama_template


def test_a_reply_is_well_formed_without_a_block_alone(format):
    assert parse_reply("Three.", format).well_formed
    assert not parse_reply(" ", format).well_formed
    assert not parse_reply("<think>\nOne, two.\n</think>\n\nThree.", format).well_formed
    assert not parse_reply("Three.", chat_format(format.name)).well_formed


def test_it_is_another_format_to_who_compares_fingerprints(format):
    assert format.fingerprint() != chat_format(format.name).fingerprint()


def test_reasoning_is_left_out_and_the_reply_follows_the_header(tmp_path):
    format = chat_format("llama3.2-reasoning", thinks=False)
    encoder = Encoder(write_base(tmp_path) / "tokenizer.json", format)
    row = Exchange(None, "How many?", "One, two.", "Three.")
    (example,) = encoder.examples([row])
    assert example == encoder.examples([row._replace(reasoning=None)])[0]
    given, learned = example.ids[: example.target_start], example.ids[example.target_start :]
    assert list(given) == encoder.prompt(ASKED)
    assert encoder.text_of(list(learned)) == "Three.<|eot_id|>"
