"""Which tokenizers hold a number in one token: those built here are known by construction."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from pipeline.cli.price import price
from pipeline.errors import PipeError
from pipeline.run import Note, silent
from pipeline.study.price import study
from pipeline.study.price.tokenizers import BEFORE, lengths_of


def write(folder: Path, words: list[str], digits: str) -> Path:
    """Words are tokens whole, digits cut by the regex; what is not known is [UNK]."""
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(digits), "isolated")
    tokenizer.decoder = decoders.Fuse()
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """As Llama 3: up to three digits are one token."""
    words = ["[UNK]", BEFORE, *map(str, range(1000))]
    return write(tmp_path / "whole", words, r"\d{1,3}")


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """As Qwen: each digit is a token."""
    return write(tmp_path / "single", ["[UNK]", BEFORE, *"0123456789"], r"\d")


def found(*names: object) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = study(tuple(map(str, names)), silent)["tokenizers"]
    return rows


def test_numbers_whole_and_digit_by_digit(whole: Path, single: Path) -> None:
    first, second = found(whole, single / "tokenizer.json")
    assert (first["one_token"], first["up_to"], first["most"]) == (1000, 999, 1)
    assert (second["one_token"], second["up_to"], second["most"]) == (10, 9, 3)
    assert first["vocabulary"] == 1002


def test_the_tiny_base_holds_all_of_two_digits() -> None:
    (tiny,) = found("builtin:tiny-llama")
    assert (tiny["one_token"], tiny["up_to"], tiny["most"]) == (100, 99, 2)


def test_a_number_joined_to_what_stands_before_it_is_not_one_token(tmp_path: Path) -> None:
    joined = [f"{BEFORE}{number}" for number in range(5)]
    folder = write(tmp_path / "joined", ["[UNK]", BEFORE, *joined], r"\n")
    assert min(lengths_of(folder / "tokenizer.json")[1]) == 2


def test_what_cannot_be_had_is_said_and_the_others_are_told(whole: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tokenizer.json").write_text('{"model": 3}')
    events: list[object] = []
    names = (str(whole), str(tmp_path / "nowhere"), str(broken))
    good, missing, bad = study(names, events.append)["tokenizers"]
    assert good["reason"] is None
    assert "there is no tokenizer.json" in missing["reason"] and missing["one_token"] is None
    assert "is no tokenizer" in bad["reason"]
    warned = [event.text for event in events if isinstance(event, Note) and event.warning]
    assert len(warned) == 2 and "nowhere is left out" in warned[0]


def test_none_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PipeError, match="None of these"):
        study((str(tmp_path / "nowhere"),), silent)


def test_a_hub_id_that_cannot_be_fetched_is_a_row_too(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def fetch(repository: str, file: str) -> str:
        if repository == "some/llama":
            return str(whole / file)
        raise OSError(f"401 for https://me:hf_{'x' * 20}@hub.example/{repository}?token=secret")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    fetched, refused = found("some/llama", "some/gated")
    assert fetched["one_token"] == 1000
    assert "cannot be fetched: 401" in refused["reason"]
    assert "hf_x" not in refused["reason"] and "secret" not in refused["reason"]


def test_the_command_prints_a_table_or_json(whole: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(price, ["tokenizers", str(whole), str(tmp_path / "nowhere")])
    assert done.exit_code == 0
    assert "1,000" in done.stdout and "not read" in done.stdout
    done = CliRunner().invoke(price, ["tokenizers", "builtin:tiny-llama", "--json"])
    (row,) = json.loads(done.stdout)["tokenizers"]
    assert (row["name"], row["up_to"]) == ("builtin:tiny-llama", 99)
