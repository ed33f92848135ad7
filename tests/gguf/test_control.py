"""Control tokens and chat templates, of a chat format and of a model's own files."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipeError
from pipeline.gguf.models import ControlTokens, Vocabulary, own_chat_template
from tests.gguf.test_vocabulary import FIRST, QWEN, SIZE, adding, keys, setting, write

BOS, END_OF_TEXT, PAD, EOM, EOT = (FIRST + i for i in (0, 1, 2, 5, 6))


@pytest.fixture
def whole(tmp_path: Path) -> Vocabulary:
    return Vocabulary.read(write(tmp_path), SIZE)


def test_a_chat_format_names_its_control_tokens(whole: Vocabulary) -> None:
    control = ControlTokens.of_format(
        whole, bos="<|begin_of_text|>", end_of_turn="<|eot_id|>", pad="<|finetune_right_pad_id|>"
    )
    assert keys(control.add_to) == {
        "bos_token_id": BOS,
        "eos_token_id": EOT,
        "eot_token_id": EOT,
        "eom_token_id": EOM,
        "padding_token_id": PAD,
        "add_bos_token": True,
    }


def test_a_format_without_a_first_token_adds_none(whole: Vocabulary) -> None:
    control = ControlTokens.of_format(whole, bos=None, end_of_turn="<|eot_id|>", pad="<none>")
    assert not keys(control.add_to)["add_bos_token"]
    assert not {"bos_token_id", "padding_token_id"} & keys(control.add_to).keys()


def test_a_token_that_the_format_needs_and_the_base_lacks_is_an_error(whole: Vocabulary) -> None:
    with pytest.raises(PipeError, match=r"no token <\|im_end\|>.*\n.*--own-template"):
        ControlTokens.of_format(whole, bos=None, end_of_turn="<|im_end|>", pad="")


def own(folder: Path) -> ControlTokens:
    return ControlTokens.of_folder(Vocabulary.read(folder, SIZE + 2), folder)


def test_the_models_own_files_name_its_control_tokens(tmp_path: Path) -> None:
    names = {"eos_token": {"content": "<|eot_id|>"}, "pad_token": "<|finetune_right_pad_id|>"}
    found = own(write(tmp_path, bos_token="<|begin_of_text|>", **names))
    assert found == ControlTokens(bos=BOS, eos=EOT, eot=EOT, eom=EOM, pad=PAD, add_bos=True)


def test_ids_in_the_configuration_stand_in_for_names(tmp_path: Path) -> None:
    folder = write(tmp_path, bos_token=None, add_bos_token=False)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [END_OF_TEXT, EOT]}))
    (folder / "config.json").write_text(
        json.dumps({"bos_token_id": BOS, "eos_token_id": 3, "pad_token_id": 999})
    )
    found = own(folder)
    assert (found.bos, found.eos, found.eot, found.pad) == (BOS, END_OF_TEXT, EOT, None)
    assert found.add_bos  # the post-processor adds it, and that is what tokenizes


def test_qwen_has_no_first_token(tmp_path: Path) -> None:
    ends = (adding("<|endoftext|>", SIZE, special=True), adding("<|im_end|>", SIZE + 1))
    without = setting("added_tokens", to=[])
    folder = write(tmp_path, *QWEN, without, *ends, eos_token="<|im_end|>", bos_token=None)
    (folder / "config.json").write_text(json.dumps({"bos_token_id": SIZE}))
    found = own(folder)
    assert (found.bos, found.eos, found.eot, found.eom) == (SIZE, SIZE + 1, SIZE + 1, None)
    assert not found.add_bos


def test_a_tokenizer_without_post_processor_asks_its_configuration(tmp_path: Path) -> None:
    bare = setting("post_processor", to=None)
    names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    assert own(write(tmp_path, bare, **names, add_bos_token=True)).add_bos
    assert not own(write(tmp_path, bare, **names)).add_bos


def test_files_that_name_no_end_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(PipeError, match="do not say which token ends a text"):
        own(write(tmp_path))


@pytest.mark.parametrize(
    ("stated", "file", "found"),
    [
        ("a", None, "a"),
        ("a", "b", "b"),
        (None, None, None),
        ([{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}], None, "d"),
        ([{"name": "tools", "template": "t"}], None, None),
    ],
)
def test_the_models_own_template_is_found_where_transformers_looks(
    tmp_path: Path, stated: Any, file: str | None, found: str | None
) -> None:
    write(tmp_path, chat_template=stated)
    if file is not None:
        (tmp_path / "chat_template.jinja").write_text(file)
    assert own_chat_template(tmp_path) == found
