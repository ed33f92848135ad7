"""What an Ollama server keeps: damaged files, rewritten ones, and those that nobody uses."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.engines.ollama import full_name
from pipeline.errors import OllamaRefused, PipeError
from pipeline.run import Note, silent
from pipeline.serve import RegisterOptions, register
from pipeline.serve.names import spare_name
from pipeline.serve.readback import EQUAL, EXPORTED, UNCOMPARED
from tests.serve.runs import RECIPE, digest, new_run, refuse_the_second
from tests.support.exported import exported_run
from tests.support.faulty_ollama import lines, reply
from tests.support.tiny_gguf import write_tiny_gguf

PLAIN = RegisterOptions()
FORCE = RegisterOptions(force=True)


@pytest.fixture
def kept(ollama, tmp_path):
    """The pretended server's files lie on this machine, to be read."""
    ollama.folder = tmp_path / "blobs"
    return ollama


@pytest.fixture
def tiny(tmp_path):
    """A run of real GGUFs."""
    files = {
        kind: write_tiny_gguf(tmp_path / f"{kind}.gguf", "{{ x }}", seed)
        for seed, kind in enumerate(RECIPE.export.quantize)
    }
    return exported_run(tmp_path / "runs" / "tiny", RECIPE, files)


def rot(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def warnings(events):
    return " ".join(event.text for event in events if isinstance(event, Note) and event.warning)


def test_a_file_that_was_there_is_hashed_again(kept, run):
    register(RECIPE, run, silent, PLAIN)
    models = register(RECIPE, run, silent, PLAIN).facts["models"]
    assert [model["blob"] for model in models] == ["was there, hashed again"] * 2
    assert kept.calls("POST /api/blobs") == 2


def test_a_damaged_file_is_found_before_anything_is_made(kept, run):
    register(RECIPE, run, silent, PLAIN)
    rot(kept.path(digest(run, "Q8_0")))
    with pytest.raises(PipeError, match=r"damaged: sha256-\w+; my-model:latest run on it") as error:
        register(RECIPE, run, silent, PLAIN)
    assert error.value.hint == "Remove it and send it again: pipe register --force"
    assert kept.calls("POST /api/create") == 2


def test_a_damaged_file_of_ours_is_sent_again_by_force(kept, run):
    register(RECIPE, run, silent, PLAIN)
    path = kept.path(digest(run, "Q8_0"))
    whole = path.read_bytes()
    rot(path)
    events = []
    models = register(RECIPE, run, events.append, FORCE).facts["models"]
    assert [model["blob"] for model in models] == ["uploaded", "was there, hashed again"]
    assert "A damaged file is removed, with my-model" in warnings(events)
    assert path.read_bytes() == whole
    assert sorted(kept.models) == ["my-model", "my-model:q4_k_m"]


def test_a_damaged_file_that_others_use_too_is_left_to_the_user(kept, run):
    register(RECIPE, run, silent, PLAIN)
    kept.models["theirs"] = kept.models["my-model"]
    rot(kept.path(digest(run, "Q8_0")))
    for options in (PLAIN, FORCE):
        with pytest.raises(PipeError) as error:
            register(RECIPE, run, silent, options)
        assert error.value.hint.endswith("ollama rm my-model:latest theirs:latest && pipe register")
    assert "theirs" in kept.models


def test_a_damaged_file_that_no_model_uses_is_removed_by_its_path(kept, run, tmp_path):
    register(RECIPE, new_run(tmp_path, "older"), silent, PLAIN)
    content = (run.folder("export") / "demo-Q8_0.gguf").read_bytes()
    rot(path := kept.path(kept.keep(content)))
    with pytest.raises(PipeError, match="damaged") as error:
        register(RECIPE, run, silent, FORCE)
    assert error.value.hint.endswith(f"rm {path}")
    kept.blobs.pop(digest(run, "Q8_0"))
    register(RECIPE, run, silent, PLAIN)


def test_a_damaged_file_on_a_server_without_models_is_removed_with_the_model(kept, run):
    content = (run.folder("export") / "demo-Q8_0.gguf").read_bytes()
    rot(kept.path(kept.keep(content)))
    with pytest.raises(PipeError, match=r"damaged, and is removed\. No model my-model was made"):
        register(RECIPE, run, silent, PLAIN)
    assert not kept.blobs
    models = register(RECIPE, run, silent, PLAIN).facts["models"]
    assert models[0]["blob"] == "uploaded"


def broken_stranger(kept):
    """A model that the server lists first and refuses to show."""
    kept.models = {"broken": {"files": {"a": f"sha256:{'0' * 64}"}}, **kept.models}

    def show(handler):
        broken = handler.values["model"].startswith("broken")
        reply(500, {"error": "unexpected EOF"})(handler) if broken else handler.behave()

    kept.faults["POST /api/show"] = show


def test_a_strangers_model_that_is_not_shown_stops_no_registration(kept, run):
    register(RECIPE, run, silent, PLAIN)
    broken_stranger(kept)
    models = register(RECIPE, run, silent, PLAIN).facts["models"]
    assert [model["blob"] for model in models] == ["was there, hashed again"] * 2


def test_a_damaged_file_is_not_removed_where_a_user_of_it_may_be_unseen(kept, run):
    register(RECIPE, run, silent, PLAIN)
    broken_stranger(kept)
    rot(path := kept.path(digest(run, "Q8_0")))
    with pytest.raises(PipeError, match="damaged") as error:
        register(RECIPE, run, silent, FORCE)
    assert error.value.hint.endswith(f"rm {path}")
    assert "my-model" in kept.models


@pytest.mark.parametrize("version", ["0.24.0", "0.34.1"])
def test_servers_that_use_the_file_itself(kept, tiny, version):
    kept.version = version
    (first, _) = register(RECIPE, tiny, silent, PLAIN).facts["models"]
    assert first["weights"] == EXPORTED
    assert first["served"] == first["digest"]


@pytest.mark.parametrize("version", ["0.30.0", "0.33.2"])
def test_a_rewritten_file_is_compared_tensor_by_tensor(kept, tiny, version):
    kept.version = version
    events = []
    manifest = register(RECIPE, tiny, events.append, PLAIN)
    first = manifest.facts["models"][0]
    assert first["weights"] == EQUAL == "rewritten by the server, every tensor equal"
    assert first["served"] == kept.digest_of("my-model") != first["digest"]
    # the server keeps what was sent, which no model uses
    assert f"{first['digest'][:19]}... (0.2 MB)" in warnings(events)
    assert first["served"][:19] not in warnings(events)
    again = register(RECIPE, tiny, silent, PLAIN)
    assert again.facts["models"][0]["served"] == first["served"]


def test_a_rewritten_file_that_cannot_be_read_is_not_called_equal(ollama, tiny):
    ollama.version = "0.31.0"
    events = []
    models = register(RECIPE, tiny, events.append, PLAIN).facts["models"]
    assert models[0]["weights"] == UNCOMPARED == "rewritten by the server, could not be compared"
    assert "The weights of my-model were rewritten by the server, could not" in warnings(events)


def test_a_rewritten_file_with_other_tensors_is_refused(kept, tiny, tmp_path, monkeypatch):
    kept.version = "0.31.0"
    other = write_tiny_gguf(tmp_path / "other.gguf", "{{ x }}", seed=9).read_bytes()
    honest = kept.keep
    monkeypatch.setattr(
        kept, "keep", lambda content: honest(other if content.endswith(bytes(32)) else content)
    )
    with pytest.raises(PipeError, match="differs in: weights"):
        register(RECIPE, tiny, silent, PLAIN)


def test_a_rewritten_file_is_known_as_ours_without_a_manifest(kept, tiny):
    """The second type failed, so that no manifest says what the first became."""
    kept.version = "0.31.0"
    kept.faults["POST /api/create"] = refuse_the_second
    with pytest.raises(OllamaRefused, match="Registered before that, whole: my-model"):
        register(RECIPE, tiny, silent, PLAIN)
    kept.faults.clear()
    register(RECIPE, tiny, silent, PLAIN)


def test_what_a_refused_creation_leaves_is_named(ollama, run):
    ollama.faults["POST /api/create"] = lines({"error": "bad GGUF"})
    events = []
    with pytest.raises(OllamaRefused, match="bad GGUF"):
        register(RECIPE, run, events.append, PLAIN)
    assert digest(run, "Q8_0")[:19] in warnings(events)
    assert digest(run, "Q4_K_M")[:19] not in warnings(events), "it was not sent"
    assert "OLLAMA_NOPRUNE" in warnings(events)


def test_what_was_ever_given_is_remembered_and_named_while_it_is_there(ollama, tmp_path):
    first = new_run(tmp_path, "demo", "first export")
    old = digest(first, "Q8_0")
    register(RECIPE, first, silent, PLAIN)
    for text in ("second export", "third export"):
        run = new_run(tmp_path, "demo", text)
        manifest = register(RECIPE, run, silent, PLAIN)
    given = {each["digest"]: each["bytes"] for each in manifest.facts["given"]}
    assert given[old] == len("first export")
    assert list(given) == sorted(given)
    ollama.blobs[old] = 12
    events = []
    register(RECIPE, run, events.append, PLAIN)
    assert f"no model uses: {old[:19]}... (0.0 MB)." in warnings(events)
    ollama.models["theirs"] = {"files": {"a.gguf": old}}
    events.clear()
    register(RECIPE, run, events.append, PLAIN)
    assert not warnings(events)


def test_a_server_that_does_not_list_its_models_is_said_and_no_failure(ollama, run, tmp_path):
    register(RECIPE, older := new_run(tmp_path, "older"), silent, PLAIN)
    ollama.models.clear()
    del ollama.blobs[digest(older, "Q4_K_M")]

    def once(handler):
        handler.server.ollama.faults["GET /api/tags"] = reply(500, {"error": "corrupt manifest"})
        handler.behave()

    ollama.faults["POST /api/chat"] = once
    events = []
    register(RECIPE, run, events.append, PLAIN)
    assert "could not be seen" in warnings(events)
    assert "corrupt manifest" in warnings(events)


def test_a_manifest_of_before_still_says_what_is_ours(ollama, run, tmp_path):
    older = new_run(tmp_path, "older")
    register(RECIPE, older, silent, PLAIN)
    path = older.folder("serve") / "manifest.json"
    values = json.loads(path.read_text())
    del values["facts"]["given"]
    for model in values["facts"]["models"]:
        del model["served"]
    path.write_text(json.dumps(values))
    shutil.rmtree(older.folder("export"))
    register(RECIPE, run, silent, PLAIN)
    assert ollama.digest_of("my-model") == digest(run, "Q8_0")


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("my-model", "my-model:latest"), ("Me/Model", "me/model:latest"),
        ("a:Q8_0", "a:q8_0"), ("host:5000/me/model", "host:5000/me/model:latest"),
    ],
)  # fmt: skip
def test_names_as_ollama_compares_them(name, full):
    assert full_name(name) == full


def test_the_name_that_the_old_model_is_kept_under():
    assert spare_name("my-model") == "my-model:before-register"
    assert spare_name("me/m:q8_0") == "me/m:q8_0-before-register"
    assert len(spare_name(f"m:{'v' * 80}").partition(":")[2]) <= 80
