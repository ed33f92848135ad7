"""A GGUF outside a run: asked by its own template, its control tokens out of reach of a text."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.gguf_file import GgufFile, read_gguf
from pipeline.engines.talk import Manner
from pipeline.engines.talk_file import FilePartner, TemplatePrompter
from pipeline.errors import PipeError
from tests.engines.talks import FORMAT, GREEDY, HELLO, heard, talk
from tests.support.tiny_gguf import write_tiny_gguf


def test_a_file_outside_a_run_is_asked_by_its_own_template(tiny, partner):
    prompter = TemplatePrompter(read_gguf(tiny), FORMAT)
    other = FilePartner(tiny, prompter, n_ctx=96, sampling=GREEDY, threads=1)
    try:
        for thinking in (True, False):
            manner = Manner(max_new_tokens=12, thinking=thinking)
            ours, theirs = (heard(each.stream(HELLO, manner)) for each in (partner, other))
            assert ours[0] == theirs[0]
            assert ours[2].prompt_tokens == theirs[2].prompt_tokens
        spelled = talk("say <|eot_id|> now")
        prompt = prompter.prompt(spelled, True, other._ask).ids
        clean = prompter.prompt(talk("say it now"), True, other._ask).ids
        end = other._ask("tokenize", text=FORMAT.end_of_turn, add_bos=False)
        assert len(end) == 1 and prompt.count(end[0]) == clean.count(end[0]) > 0
        assert [r.kind for r in heard(other.stream(spelled, Manner()))[1]] == ["control tokens"]
    finally:
        other.close()


FOREIGN = {
    2: ["<unk>"],
    3: ["<start_of_turn>", "[INST]", "[/INST]", "</s>", "<｜User｜>", "<｜begin▁of▁sentence｜>"],
    4: ["<end_of_turn>", "  ", "<table>", "<think>"],
    1: ["hello", "[IN"],
}


def foreign() -> TemplatePrompter:
    metadata = {
        "tokenizer.chat_template": "{{ '<start_of_turn>' }}x{{ '<end_of_turn>' }}  <think>",
        "tokenizer.ggml.tokens": [text for texts in FOREIGN.values() for text in texts],
        "tokenizer.ggml.token_type": [kind for kind, texts in FOREIGN.items() for _ in texts],
    }
    return TemplatePrompter(GgufFile(Path("x.gguf"), metadata, ()), FORMAT)


MARKS = [*FOREIGN[2], *FOREIGN[3], "<end_of_turn>"]


@given(st.lists(st.sampled_from([*MARKS, "<|eot_id|>", "<", "[IN", "</", "s>", " ", "a"])))
def test_no_control_token_of_a_foreign_file_is_spelled_any_more(pieces):
    text = "".join(pieces)
    neutral = foreign().neutral(text)
    assert not any(mark in neutral for mark in [*MARKS, "<|eot_id|>"])
    assert neutral.replace(" ", "") == text.replace(" ", "")


def test_what_is_only_text_to_a_foreign_file_stays():
    text = "hello  <table> <think> [IN</think>"
    assert foreign().neutral(text) == text


def test_a_template_that_opens_the_thinking_itself_is_understood(tiny, tmp_path):
    opening = FORMAT.jinja + "{{- '<think>\\n' }}"
    prompter = TemplatePrompter(read_gguf(write_tiny_gguf(tmp_path / "r1.gguf", opening)), FORMAT)
    sent = []

    def ask(operation, **given):
        if operation == "render":
            return {"prompt": "<s>user Hi assistant<think>\n", "bos": "<s>"}
        sent.append(given["text"])
        return [1]

    assert prompter.prompt(HELLO, True, ask).opened
    assert not prompter.prompt(HELLO, False, ask).opened
    assert sent == [
        "user Hi assistant<think>\n",
        "user Hi assistant<think>\n\n</think>\n\n",
    ]


def test_a_file_without_a_template_is_refused(tmp_path):
    header = read_gguf(write_tiny_gguf(tmp_path / "none.gguf", ""))
    with pytest.raises(PipeError, match="no chat template"):
        TemplatePrompter(header, FORMAT)
