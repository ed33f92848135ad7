"""The real Ollama server, given a tiny model of random weights: is what we rely on so?"""

import subprocess
from pathlib import Path

import pytest
from ollama import Client

from pipeline.chat import chat_format
from pipeline.engines.ollama import OllamaServer, model_blob
from pipeline.errors import OllamaRefused, PipeError
from pipeline.run import Run, silent
from pipeline.run.files import sha256_of
from pipeline.serve import RegisterOptions, license_text, modelfile, register
from tests.support.exported import demo, exported_run
from tests.support.ollama import environment, ollama_binary
from tests.support.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.e2e

FORMAT = chat_format("llama3.2-reasoning")
RECIPE = demo("export.quantize=[F16,BF16]", "eval.max_new_tokens=12", "serve.num_ctx=512")
"""Both files hold F16 weights; only their names and bytes differ."""
FIRST_TURN = [{"role": "user", "content": "Two and two?"}]
CONVERSATIONS = {
    "one turn": FIRST_TURN,
    "system": [{"role": "system", "content": "Be brief."}, *FIRST_TURN],
    "many turns": [
        *FIRST_TURN,
        {"role": "assistant", "content": "Four."},
        {"role": "user", "content": "And 10 + 20,\n\nwhy?"},
        {"role": "assistant", "content": "30: {{ 1 }} \"\"\" it is."},
        {"role": "user", "content": "ünïcode 🦙?"},
    ],
}  # fmt: skip


@pytest.fixture
def server(ollama_server: OllamaServer, monkeypatch: pytest.MonkeyPatch) -> OllamaServer:
    """With nothing in it, and meant by $OLLAMA_HOST."""
    for model in ollama_server.tags():
        ollama_server.delete(model["name"])
    monkeypatch.setenv("OLLAMA_HOST", ollama_server.url)
    return ollama_server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    return {
        kind: write_tiny_gguf(folder / f"{kind}.gguf", FORMAT.jinja, seed)
        for seed, kind in enumerate(RECIPE.export.quantize)
    }


@pytest.fixture
def run(tmp_path: Path, files: dict[str, Path]) -> Run:
    return exported_run(tmp_path / "runs" / "tiny", RECIPE, files)


def truncated(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes()[:-5000])
    return target


def test_register_and_read_back(server, run, files):
    manifest = register(RECIPE, run, silent, RegisterOptions())
    assert {model["name"] for model in server.tags()} == {"my-model:latest", "my-model:bf16"}
    assert manifest.versions["ollama"] == server.version()
    for model, path in zip(manifest.facts["models"], files.values(), strict=True):
        assert model["digest"] == f"sha256:{sha256_of(path)}"
        assert model["capabilities"] == ["completion", "thinking"]
        assert model["blob"] == "uploaded"
        asked = model["asked"]
        assert asked["question"] == "What is 2 + 3?"
        assert asked["done_reason"] in {"stop", "length"}
        assert asked["thinking"] + asked["content"]
    again = register(RECIPE, run, silent, RegisterOptions())
    assert [model["blob"] for model in again.facts["models"]] == ["was there, hashed again"] * 2
    assert again.facts["models"][0]["asked"] == manifest.facts["models"][0]["asked"]


def test_the_template_that_answers_is_ours(server, run):
    register(RECIPE, run, silent, RegisterOptions())
    for name, conversation in CONVERSATIONS.items():
        for thinking in (True, False):
            rendered = server.rendered_prompt("my-model", conversation, thinking)
            wanted = FORMAT.render(conversation, thinking=thinking)
            assert FORMAT.bos + rendered == wanted, (name, thinking)
    assert server.rendered_prompt("my-model", FIRST_TURN) == server.rendered_prompt(
        "my-model", FIRST_TURN, True
    )


def test_ordinary_clients_can_chat(server, run):
    register(RECIPE, run, silent, RegisterOptions())
    options = {"temperature": 0, "seed": 1, "num_predict": 12}
    ours = server.chat("my-model", FIRST_TURN, think=False, options=options)
    theirs = Client(server.url, trust_env=False).chat(
        "my-model", FIRST_TURN, think=False, options=options
    )
    assert theirs.message.content == ours.content != ""
    assert theirs.done_reason == ours.done_reason
    assert theirs.eval_count == ours.eval_count
    assert server.chat("my-model", FIRST_TURN, options=options).eval_count > 0


def test_ollamas_own_command_makes_the_same_model_from_the_modelfile(
    server, run, files, tmp_path, ollama_home
):
    register(RECIPE, run, silent, RegisterOptions())
    text = modelfile(RECIPE, FORMAT, "F16.gguf", license_text(RECIPE, tmp_path))
    folder = files["F16"].parent
    (folder / "Modelfile").write_text(text)
    subprocess.run(
        [ollama_binary(), "create", "by-hand", "-f", "Modelfile"],
        cwd=folder, env=environment(ollama_home, server), check=True, capture_output=True,
        timeout=60,
    )  # fmt: skip
    ours, theirs = server.show("my-model"), server.show("by-hand")
    assert model_blob(theirs) == model_blob(ours)
    assert theirs["template"] == ours["template"]
    assert sorted(theirs["parameters"].splitlines()) == sorted(ours["parameters"].splitlines())
    assert theirs["license"] == "apache-2.0"


def test_a_strangers_model_is_replaced_only_by_force(server, run, files):
    stranger = write_tiny_gguf(files["F16"].parent / "stranger.gguf", FORMAT.jinja, seed=9)
    digest = f"sha256:{sha256_of(stranger)}"
    server.upload_blob(stranger, digest, lambda _: None)
    server.create({"model": "My-Model", "files": {"s.gguf": digest}}, lambda _: None)
    with pytest.raises(PipeError, match="already has a model my-model that no run here made"):
        register(RECIPE, run, silent, RegisterOptions())
    assert model_blob(server.show("my-model"))[1] == digest
    register(RECIPE, run, silent, RegisterOptions(force=True))
    assert model_blob(server.show("my-model"))[1] == f"sha256:{sha256_of(files['F16'])}"
    assert not server.has_blob(digest)


def test_a_truncated_file_fails_in_the_servers_words_and_the_old_model_stays(
    server, run, files, tmp_path
):
    old = register(RECIPE, run, silent, RegisterOptions())
    broken = {kind: truncated(path, tmp_path / kind) for kind, path in files.items()}
    bad = exported_run(tmp_path / "runs" / "bad", RECIPE, broken)
    with pytest.raises(OllamaRefused, match=r"offset\+size exceeds file size") as error:
        register(RECIPE, bad, silent, RegisterOptions())
    assert "my-model that was there before is as it was" in error.value.message
    assert model_blob(server.show("my-model"))[1] == old.facts["models"][0]["digest"]
    options = {"temperature": 0, "seed": RECIPE.seed, "num_predict": 12}
    question = [{"role": "user", "content": "What is 2 + 3?"}]
    reply = server.chat("my-model", question, options=options)
    assert reply.content == old.facts["models"][0]["asked"]["content"]


def test_a_truncated_file_makes_no_model(server, files, tmp_path):
    broken = {kind: truncated(path, tmp_path / kind) for kind, path in files.items()}
    bad = exported_run(tmp_path / "runs" / "bad", RECIPE, broken)
    with pytest.raises(OllamaRefused, match="No model my-model was made"):
        register(RECIPE, bad, silent, RegisterOptions())
    assert server.tags() == []
    assert bad.manifest("serve") is None


def test_an_interrupted_upload_leaves_the_old_model_and_can_be_repeated(
    server, run, files, tmp_path
):
    old = register(RECIPE, run, silent, RegisterOptions())
    turned = {"F16": files["BF16"], "BF16": write_tiny_gguf(tmp_path / "n.gguf", FORMAT.jinja, 7)}
    new = exported_run(tmp_path / "runs" / "new", RECIPE, turned)

    def interrupt(event):
        if getattr(event, "unit", "") == "B":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        register(demo("export.quantize=[BF16]"), new, interrupt, RegisterOptions())
    assert new.manifest("serve") is None
    assert model_blob(server.show("my-model"))[1] == old.facts["models"][0]["digest"]
    register(RECIPE, new, silent, RegisterOptions())


def test_new_weights_answer_after_registering_again(server, run, files, tmp_path):
    register(RECIPE, run, silent, RegisterOptions())
    turned = {"F16": files["BF16"], "BF16": files["F16"]}
    new = exported_run(tmp_path / "runs" / "new", RECIPE, turned)
    before = run.require("serve").facts["models"]
    after = register(RECIPE, new, silent, RegisterOptions()).facts["models"]
    assert [model["digest"] for model in after] == [model["digest"] for model in before[::-1]]
    assert [model["asked"] for model in after] == [model["asked"] for model in before[::-1]]


def test_a_damaged_file_of_the_server_is_found_and_sent_again(server, run, ollama_home):
    register(RECIPE, run, silent, RegisterOptions())
    digest = damage(server, ollama_home)
    with pytest.raises(PipeError, match="damaged") as error:
        register(RECIPE, run, silent, RegisterOptions())
    assert "pipe register --force" in error.value.hint
    models = register(RECIPE, run, silent, RegisterOptions(force=True)).facts["models"]
    assert [model["blob"] for model in models] == ["uploaded", "was there, hashed again"]
    assert f"sha256:{sha256_of(Path(model_blob(server.show('my-model'))[0]))}" == digest


def test_a_damaged_file_that_two_models_use_goes_with_both(server, run, ollama_home):
    register(RECIPE, run, silent, RegisterOptions())
    server.copy("my-model", "theirs")
    digest = damage(server, ollama_home)
    with pytest.raises(PipeError, match="run on it") as error:
        register(RECIPE, run, silent, RegisterOptions(force=True))
    assert set(error.value.hint.split()) >= {"theirs:latest", "my-model:latest"}
    server.delete("my-model")
    assert server.has_blob(digest)
    server.delete("theirs")
    assert not server.has_blob(digest)
    register(RECIPE, run, silent, RegisterOptions())


def damage(server: OllamaServer, home: Path) -> str:
    """Turn one bit of the file behind my-model; its digest as it was."""
    path, digest = model_blob(server.show("my-model"))
    blob = Path(path)
    assert blob.is_relative_to(home)
    content = bytearray(blob.read_bytes())
    content[-1000] ^= 1
    blob.write_bytes(content)
    return digest


def test_a_digest_that_is_not_the_files_is_refused(server, files):
    with pytest.raises(OllamaRefused, match="digest mismatch"):
        server.upload_blob(files["F16"], f"sha256:{'0' * 64}", lambda _: None)
