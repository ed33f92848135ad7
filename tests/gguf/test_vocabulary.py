"""Tokens, their types and merges, from a tokenizer's files into GGUF's keys."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import PipeError
from pipeline.gguf.models import Vocabulary
from pipeline.gguf.models.pretokenizer import LLAMA3_SPLIT, QWEN2_SPLIT
from tests.support.tokenizer import SPECIALS, tokenizer_json

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
Change = Callable[[dict[str, Any]], None]


def write(folder: Path, *changes: Change, **config: Any) -> Path:
    """The tiny Llama 3 tokenizer after `changes`, with a tokenizer_config.json of `config`."""
    tokenizer = json.loads(tokenizer_json())
    for change in changes:
        change(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def setting(*path: str | int, to: Any) -> Change:
    """Replaces the value at `path`."""

    def change(tokenizer: dict[str, Any]) -> None:
        where: Any = tokenizer
        for step in path[:-1]:
            where = where[step]
        where[path[-1]] = to

    return change


def adding(content: str, number: int, **fields: Any) -> Change:
    """Adds a token; `special` is False unless told."""
    token = {
        "id": number, "content": content, "special": False, "normalized": False,
        "lstrip": False, "rstrip": False, "single_word": False, **fields,
    }  # fmt: skip
    return lambda tokenizer: tokenizer["added_tokens"].append(token)


SPLIT = ("pre_tokenizer", "pretokenizers", 0)
QWEN = (
    setting(*SPLIT, "pattern", to={"Regex": QWEN2_SPLIT}),
    setting("model", "ignore_merges", to=False),
    setting("normalizer", to={"type": "NFC"}),
    setting("post_processor", to={"type": "ByteLevel"}),
)
FIRST = len(json.loads(tokenizer_json())["model"]["vocab"])
SIZE = FIRST + len(SPECIALS)
BOS = FIRST


@pytest.fixture
def whole(tmp_path: Path) -> Vocabulary:
    return Vocabulary.read(write(tmp_path), SIZE)


def test_tokens_stand_in_the_order_of_their_ids(whole: Vocabulary) -> None:
    tokenizer = json.loads(tokenizer_json())
    ids = tokenizer["model"]["vocab"] | {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
    assert [whole.tokens[number] for number in ids.values()] == list(ids)
    assert whole.ids == ids and len(set(whole.tokens)) == len(whole.tokens) == SIZE
    assert whole.types == [NORMAL] * FIRST + [CONTROL] * len(SPECIALS)


def test_the_regex_tells_the_pre_tokenizer(tmp_path: Path, whole: Vocabulary) -> None:
    assert whole.pre == "llama-bpe"
    assert Vocabulary.read(write(tmp_path, *QWEN), SIZE).pre == "qwen2"


def test_the_two_regexes_are_those_of_llama_3_and_qwen() -> None:
    """Of the tokenizer.json files of Llama 3.2 and of Qwen2.5 and Qwen3."""
    from hashlib import sha256

    assert [sha256(regex.encode()).hexdigest() for regex in (LLAMA3_SPLIT, QWEN2_SPLIT)] == [
        "d98f9631be1e9607a9848c26c1f9eac1aa9fc21ac6ba82a2fc0741af9780a48f",
        "1ff7f41064896984db5d1bb6ff64fa4bc29007d08c1b439e505b7392777a319e",
    ]


def test_rows_without_a_token_are_filled_with_unused_ones(tmp_path: Path) -> None:
    found = Vocabulary.read(write(tmp_path), SIZE + 3)
    assert found.tokens[SIZE:] == [f"[PAD{i}]" for i in range(SIZE, SIZE + 3)]
    assert found.types[SIZE:] == [UNUSED] * 3
    assert f"[PAD{SIZE}]" not in found.ids


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(SIZE, SIZE + 20), max_size=6), st.booleans())
def test_a_filler_never_takes_the_name_of_a_token(
    tmp_path: Path, numbers: set[int], again: bool
) -> None:
    """A name that stands twice aborts llama.cpp, and with it whatever loaded it."""
    named = [f"[PAD{n}{'_' * again}]" for n in range(SIZE, SIZE + 20)]
    taken = zip(sorted(numbers), reversed(named), strict=False)
    rows = SIZE + 30
    folder = write(tmp_path, *(adding(name, number) for number, name in taken))
    found = Vocabulary.read(folder, rows)
    assert len(set(found.tokens)) == rows
    assert found.types.count(UNUSED) == rows - SIZE - len(numbers)


def test_more_tokens_than_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(PipeError, match=f"has the id {SIZE - 1}, the embedding {SIZE - 1} rows"):
        Vocabulary.read(write(tmp_path), SIZE - 1)


@pytest.mark.parametrize(
    ("content", "special", "written", "type"),
    [
        ("<tool_call>", False, "<tool_call>", USER_DEFINED),
        ("<|fim_prefix|>", False, "<|fim_prefix|>", CONTROL),
        ("<｜User｜>", False, "<｜User｜>", CONTROL),
        ("<pad>", False, "<pad>", CONTROL),
        ("<unused7>", False, "<unused7>", CONTROL),
        ("<think>", True, "<think>", CONTROL),
        ("▁▁", False, "  ", USER_DEFINED),
        ("<｜begin▁of▁sentence｜>", True, "<｜begin▁of▁sentence｜>", CONTROL),
    ],
)
def test_added_tokens_get_the_types_of_llama_cpps_converter(
    tmp_path: Path, content: str, special: bool, written: str, type: int
) -> None:
    found = Vocabulary.read(write(tmp_path, adding(content, SIZE, special=special)), SIZE + 1)
    assert (found.tokens[SIZE], found.types[SIZE]) == (written, type)


def test_tokens_that_only_the_configuration_knows_are_in(tmp_path: Path) -> None:
    token = {"content": "<think>", "special": False}
    known = {"content": SPECIALS[0], "special": True}
    folder = write(tmp_path, added_tokens_decoder={str(SIZE): token, str(BOS): known})
    assert Vocabulary.read(folder, SIZE + 1).tokens[FIRST:] == [*SPECIALS, "<think>"]


def test_an_added_token_may_stand_in_the_vocabulary_too(tmp_path: Path) -> None:
    number = Vocabulary.read(write(tmp_path), SIZE).ids["Ġ"]
    found = Vocabulary.read(write(tmp_path, adding("Ġ", number)), SIZE)
    assert found.tokens[number] == "Ġ" and found.types[number] == USER_DEFINED


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (adding("zebra", 300), r"gives the id 300 to .* and 'zebra'"),
        (adding(SPECIALS[0], SIZE), r"'<\|begin_of_text\|>' under two ids"),
    ],
)
def test_ids_that_contradict_one_another_are_an_error(
    tmp_path: Path, change: Change, said: str
) -> None:
    with pytest.raises(PipeError, match=said):
        Vocabulary.read(write(tmp_path, change), SIZE + 1)


@pytest.mark.parametrize(
    ("merges", "written"),
    [
        ([["a", "b"], ["Ġ", "t"]], ["a b", "Ġ t"]),
        (["a b", "Ġ t"], ["a b", "Ġ t"]),
        ([["a b", "c"], ["d", " "]], ["aĠb c", "d Ġ"]),
    ],
)
def test_merges_are_joined_by_one_space(
    tmp_path: Path, merges: list[Any], written: list[str]
) -> None:
    folder = write(tmp_path, setting("model", "merges", to=merges))
    assert Vocabulary.read(folder, SIZE).merges == written


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (setting("model", "type", to="Unigram"), "of the type Unigram"),
        (setting("model", "dropout", to=0.1), "sets dropout"),
        (setting("model", "byte_fallback", to=True), "sets byte_fallback"),
        (setting("model", "end_of_word_suffix", to="</w>"), "sets end_of_word_suffix"),
        (setting("normalizer", to={"type": "Lowercase"}), "normalises by Lowercase"),
        (setting("normalizer", to={"type": "NFKC"}), "normalises by NFKC"),
        (setting("decoder", to={"type": "WordPiece"}), "does not decode bytes"),
        (setting("pre_tokenizer", to={"type": "ByteLevel"}), "split by one regex"),
        (setting("pre_tokenizer", to=None), "split by one regex"),
        (setting(*SPLIT, "pattern", to={"Regex": r"\p{N}{1,3}"}), "a regex of its own"),
        (setting(*SPLIT, "pattern", to={"Regex": LLAMA3_SPLIT + " "}), "a regex of its own"),
        (setting(*SPLIT, "behavior", to="Removed"), "does not .Isolated"),
        (setting(*SPLIT, "invert", to=True), "does not .Isolated"),
        (setting("pre_tokenizer", "pretokenizers", 1, "add_prefix_space", to=True), "prefix"),
        (adding("<mask>", SIZE, lstrip=True), "strips or isolates around its token <mask>"),
        (setting("model", "vocab", to=None), "not a whole tokenizer"),
        (setting("model", "merges", to=[["a"]]), "not a whole tokenizer"),
        (setting("added_tokens", to=None), "not a whole tokenizer"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(
    tmp_path: Path, change: Change, said: str
) -> None:
    with pytest.raises(PipeError, match=said):
        Vocabulary.read(write(tmp_path, change), SIZE + 1)


def test_ignore_merges_may_differ_where_it_changes_nothing(tmp_path: Path) -> None:
    """Every token of a trained BPE is what its merges make of its own text."""
    plain = setting("model", "ignore_merges", to=False)
    assert Vocabulary.read(write(tmp_path, plain), SIZE).pre == "llama-bpe"
    old = setting("model", "ignore_merges", to=None)
    assert Vocabulary.read(write(tmp_path, old), SIZE).pre == "llama-bpe"


def test_a_token_that_only_ignore_merges_reaches_is_refused(tmp_path: Path) -> None:
    lost = setting("model", "merges", to=[])
    plain = setting("model", "ignore_merges", to=False)
    with pytest.raises(PipeError, match="sets ignore_merges to False, which changes the token"):
        Vocabulary.read(write(tmp_path, lost, plain), SIZE)
    whole_words = setting("model", "ignore_merges", to=True)
    with pytest.raises(PipeError, match="sets ignore_merges to True, which changes the token"):
        Vocabulary.read(write(tmp_path, *QWEN, lost, whole_words), SIZE)


@pytest.mark.parametrize("text", ["", "[]", '{"model": '])
def test_a_torn_tokenizer_is_an_error(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(PipeError, match=r"tokenizer\.json"):
        Vocabulary.read(tmp_path, SIZE)


def keys(*parts: Callable[[GGUFWriter], None]) -> dict[str, Any]:
    writer = GGUFWriter(None, "llama")
    for part in parts:
        part(writer)
    prefix = "tokenizer.ggml."
    found = {key: value.value for key, value in writer.kv_data[0].items()}
    return {key.removeprefix(prefix): found[key] for key in found if key.startswith(prefix)}


def test_the_file_has_these_keys(whole: Vocabulary) -> None:
    assert keys(whole.add_to) == {
        "model": "gpt2",
        "pre": "llama-bpe",
        "tokens": whole.tokens,
        "token_type": whole.types,
        "merges": whole.merges,
    }
