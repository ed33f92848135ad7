"""Which engines a run's eval asks, and that none is left out or put in silently."""

import pytest

from pipeline.base import open_base
from pipeline.chat import Encoder, chat_format
from pipeline.engines import contenders as room
from pipeline.engines.contenders import contenders, taken_name
from pipeline.engines.endpoint import EndpointEngine
from pipeline.errors import MissingInput, PipeError
from pipeline.run import silent
from pipeline.serve import RegisterOptions, register
from tests.serve.runs import new_run
from tests.support.exported import demo, exported_run
from tests.support.faulty_ollama import faulty_ollama
from tests.support.ollama import free_port

ENDPOINT = "eval.endpoint={url: 'http://127.0.0.1:8/v1', model: m}"
SECRET = "eval.endpoint={url: 'http://127.0.0.1:8/v1', model: m, key_env: PIPE_TEST_KEY}"


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """The contenders of a demo run with one exported file, whatever the file holds."""
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
    gguf = tmp_path / "a.gguf"
    gguf.write_bytes(b"GGUF")

    def list_(*overrides):
        recipe = demo("export.quantize=[Q8_0]", *overrides)
        run = exported_run(tmp_path / "run", recipe, {"Q8_0": gguf})
        base = open_base(recipe.model)
        format = chat_format(recipe.chat.format)
        encoder = Encoder(base.folder / "tokenizer.json", format)
        return contenders(recipe, run, base, encoder)

    return list_


def test_all_there_are_and_whether_they_tell_log_probabilities(listed, monkeypatch):
    monkeypatch.setattr(room, "served_name", lambda run: "my-model")
    monkeypatch.setattr(room, "_bears_ours", lambda run, name: True)
    assert [(each.name, each.scores) for each in listed(ENDPOINT)] == [
        ("base", True),
        ("adapter", True),
        ("merged", True),
        ("Q8_0", True),
        ("ollama", False),
        ("endpoint", False),
    ]


def test_another_runs_model_of_the_same_name_is_not_asked(tmp_path, monkeypatch):
    recipe = demo()
    runs = [new_run(tmp_path, name) for name in ("one", "two")]
    with faulty_ollama() as ollama:
        monkeypatch.setenv("OLLAMA_HOST", ollama.url)
        for run in runs:
            register(recipe, run, silent, RegisterOptions())
        names = [served_by(recipe, run) for run in runs]
        taken = [taken_name(run) for run in runs]
    assert names == [False, True]
    assert taken == ["my-model", None]


def served_by(recipe, run):
    base = open_base(recipe.model)
    encoder = Encoder(base.folder / "tokenizer.json", chat_format(recipe.chat.format))
    return "ollama" in [each.name for each in contenders(recipe, run, base, encoder)]


def test_the_recipe_chooses(listed):
    chosen = listed("eval.engines=[endpoint,Q8_0]", ENDPOINT)
    assert [each.name for each in chosen] == ["Q8_0", "endpoint"]


@pytest.mark.parametrize("name", ["ollama", "endpoint", "Q4_K_M", "tuned"])
def test_an_engine_that_is_not_there_is_said_with_those_that_are(listed, name):
    with pytest.raises(PipeError, match=rf"no engine {name}.*base, adapter, merged, Q8_0\."):
        listed(f"eval.engines=[base,{name}]")


def test_a_type_that_was_not_exported_is_a_missing_input(listed):
    with pytest.raises(MissingInput, match="Q2_K"):
        listed("export.quantize=[Q2_K]")


def test_only_the_adapter_has_its_base_in_four_bits(listed, monkeypatch):
    asked = {}

    def engine(variant, tuned, encoder, **settings):
        asked[variant] = settings

    monkeypatch.setattr(room, "open_trained", engine)
    for each in listed("train.method=qlora", "eval.batch_size=5")[:3]:
        each.open()
    bits = {variant: settings["bits"] for variant, settings in asked.items()}
    assert bits == {"base": 16, "adapter": 4, "merged": 16}
    assert {settings["batch_size"] for settings in asked.values()} == {5}


@pytest.fixture
def engines_opened(monkeypatch):
    """Variant -> (base's folder, settings) of every model that Transformers loads."""
    opened = {}

    def load(variant, base, adapter, **settings):
        opened[variant] = (base.folder, settings | {"adapter": adapter})

    monkeypatch.setattr("pipeline.engines.transformers.load_model", load)
    return opened


def test_trained_in_full_the_tuned_model_is_opened_itself_and_there_is_no_merge(
    listed, tmp_path, engines_opened
):
    found = listed("train.method=full")
    assert [each.name for each in found] == ["base", "adapter", "Q8_0"]
    assert [each.shown for each in found] == ["base", "tuned (full)", "Q8_0"]
    for each in found[:2]:
        each.open()
    (base, _), (tuned, settings) = engines_opened["base"], engines_opened["adapter"]
    assert base == open_base(demo().model).folder
    assert tuned == tmp_path / "run" / "train" / "model"
    assert settings["adapter"] is None and settings["bits"] == 16
    with pytest.raises(PipeError, match=r"no engine merged.*base, adapter, Q8_0\.") as caught:
        listed("train.method=full", "eval.engines=[base,merged]")
    assert "merged is there where an adapter was trained" in caught.value.hint


def test_an_adapter_of_8_bits_is_opened_on_8_with_a_gpu_or_without(
    listed, monkeypatch, engines_opened
):
    for has_gpu in (True, False):
        monkeypatch.setattr("pipeline.engines.trained.has_gpu", lambda there=has_gpu: there)
        listed("train.device=cuda", "train.method=lora-8bit")[1].open()
        _, settings = engines_opened["adapter"]
        opened = (settings["bits"], settings["device"])
        assert opened == (8, "cuda" if has_gpu else "cpu")


def test_an_endpoint_is_opened_with_its_key_and_the_batch_size(listed, monkeypatch):
    monkeypatch.setenv("PIPE_TEST_KEY", " planted-key\n")
    (found,) = listed("eval.engines=[endpoint]", "eval.batch_size=5", SECRET)
    opened = found.open()
    assert isinstance(opened, EndpointEngine)
    assert (opened.url, opened.model) == ("http://127.0.0.1:8/v1", "m")
    assert opened._client.headers["Authorization"] == "Bearer planted-key"
    assert opened._batch_size == 5
    assert "planted-key" not in repr(found)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_is_named_before_anything_is_opened(listed, monkeypatch, value):
    monkeypatch.delenv("PIPE_TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("PIPE_TEST_KEY", value)
    with pytest.raises(PipeError, match="PIPE_TEST_KEY, which is not set"):
        listed(SECRET)
    assert listed(SECRET, "eval.engines=[base]")
