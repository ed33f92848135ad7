"""Our ChatML against the templates of Qwen3 and Qwen2.5, as published."""

from pathlib import Path

import pytest
from hypothesis import given, settings

from pipeline.chat import chat_format, render_jinja
from tests.chat.texts import spelling_none
from tests.support.qwen import added

FORMAT = chat_format("chatml-reasoning")
PLAIN = spelling_none(added("qwen3"))

OFFICIAL = Path(__file__).parents[1] / "support"
"""The templates of Qwen3-0.6B and Qwen2.5-7B-Instruct, as published."""


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
