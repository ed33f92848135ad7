"""A base in a folder: its name, its revision, and what is said where there is none."""

import json
from pathlib import Path

import pytest

from pipeline.base import Base, base_at
from pipeline.errors import PipeError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def folder(path: Path, config: str = "{}") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(config)
    return path


@pytest.mark.parametrize("asked", [".", "../my-llama", "./"])
def test_a_folder_gives_its_own_name_however_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    place = folder(tmp_path / "my-llama")
    monkeypatch.chdir(place)
    base = base_at(Path(asked))
    assert base == Base("my-llama", place.resolve(), None) and base.title == "my-llama"


@pytest.mark.parametrize(
    ("cached", "name", "title"),
    [
        ("models--meta-llama--Llama-3.2-1B", "meta-llama/Llama-3.2-1B", "Llama-3.2-1B"),
        ("models--gpt2", "gpt2", "gpt2"),
    ],
)
def test_a_snapshot_in_the_hubs_cache_has_its_repositorys_name_and_commit(
    tmp_path: Path, cached: str, name: str, title: str
) -> None:
    place = folder(tmp_path / "hub" / cached / "snapshots" / COMMIT)
    link = tmp_path / "link"
    link.symlink_to(place)
    for asked in (place, link):
        base = base_at(asked)
        assert (base.name, base.title, base.revision) == (name, title, COMMIT)
        assert base.folder == place.resolve()


def test_what_only_resembles_a_snapshot_is_a_folder(tmp_path: Path) -> None:
    for parts in (("models--a--b", "snapshots", "main"), ("a--b", "snapshots", COMMIT)):
        base = base_at(folder(tmp_path.joinpath(*parts)))
        assert (base.name, base.revision) == (parts[-1], None)


def test_a_missing_folder_or_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, said in (("none", "no folder .*none"), ("empty", "no config.json in .*empty")):
        with pytest.raises(PipeError, match=said) as caught:
            base_at(tmp_path / name)
        assert "model.base" not in str(caught.value)
    with pytest.raises(PipeError, match="no safetensors") as caught:
        base_at(folder(tmp_path / "bare")).shards()
    assert "model.base" not in str(caught.value)


@pytest.mark.parametrize("config", ["[]", '"llama"', "3", "{", "[" * 100_000])
def test_a_configuration_that_is_no_object_is_an_error_that_names_it(
    tmp_path: Path, config: str
) -> None:
    base = base_at(folder(tmp_path / "base", config))
    with pytest.raises(PipeError, match=r"config\.json cannot be read") as caught:
        _ = base.config
    assert caught.value.hint


def test_a_configuration_is_read_as_it_is(tmp_path: Path) -> None:
    config = {"model_type": "qwen3", "rope_parameters": {"rope_theta": 1e6}}
    assert base_at(folder(tmp_path / "base", json.dumps(config))).config == config
