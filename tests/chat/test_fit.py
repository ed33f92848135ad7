"""Which chat format fits a base's tokenizer, and what is said of one that does not."""

import re

import pytest

from pipeline.chat import Encoder, chat_format, check_fit, fastest, format_for
from pipeline.errors import PipeError
from tests.chat.texts import write
from tests.support.qwen import tokenizer_json
from tests.support.tokenizer import tokenizer_json as llama3_json

FORMAT = chat_format("chatml-reasoning")
LLAMA = chat_format("llama3.2-reasoning")


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


def test_runs_made_with_llamas_format_stay_what_they_are():
    assert LLAMA.fingerprint()["sha256"].startswith("49deb58d7d171aca")
    assert FORMAT.fingerprint() != LLAMA.fingerprint()
