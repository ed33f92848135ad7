"""Registration against a pretended Ollama: what is sent, refused, replaced and written down."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import (
    ChangedInput,
    MissingInput,
    OllamaRefused,
    OllamaUnreachable,
    PipeError,
    RecipeError,
)
from pipeline.run import Note, Progress, Run, silent
from pipeline.serve import RegisterOptions, register, registration_command
from tests.serve.runs import RECIPE, digest, new_run
from tests.support.exported import demo
from tests.support.faulty_ollama import cut, lines, reply
from tests.support.ollama import free_port

PLAIN = RegisterOptions()
NAMES = ["my-model", "my-model:q4_k_m"]


def test_every_type_becomes_a_model(ollama, run):
    events = []
    manifest = register(RECIPE, run, events.append, PLAIN)
    assert list(ollama.models) == NAMES
    assert manifest == run.manifest("serve")
    assert manifest.versions == {"ollama": "0.34.1"}
    assert manifest.inputs == run.input_entry("export")
    assert manifest.facts["models"][1] == {
        "name": "my-model:q4_k_m",
        "type": "Q4_K_M",
        "digest": digest(run, "Q4_K_M"),
        "served": digest(run, "Q4_K_M"),
        "weights": "the exported file",
        "blob": "uploaded",
        "capabilities": ["completion", "thinking"],
        "asked": {
            "question": "What is 2 + 3?",
            "thinking": "2 + 3",
            "content": "5",
            "done_reason": "stop",
        },
    }
    uploads = [event for event in events if isinstance(event, Progress) and event.unit == "B"]
    assert uploads[-1].task == "upload demo-Q4_K_M.gguf"
    assert uploads[-1].done == uploads[-1].total
    assert "rate" in uploads[-1].figures


def test_what_is_sent_is_what_the_modelfile_says(ollama, run):
    register(RECIPE, run, silent, PLAIN)
    assert ollama.models["my-model"] == {
        "model": "my-model",
        "stream": True,
        "files": {"demo-Q8_0.gguf": digest(run, "Q8_0")},
        "template": run.require("export").facts["template"],
        "license": "mit",
        "parameters": {
            "stop": ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
            "temperature": 0.6,
            "top_p": 0.95,
            "repeat_penalty": 1.0,
            "num_ctx": 1024,
        },
    }


def test_the_first_test_row_is_asked(ollama, run):
    path = run.folder("data") / "test.jsonl"
    path.parent.mkdir(exist_ok=True)
    rows = [{"question": "How many?", "system": "Count.", "answer": "4"}, {"question": "Who?"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = register(RECIPE, run, silent, PLAIN).facts["models"][0]["asked"]
    assert (asked["question"], asked["system"]) == ("How many?", "Count.")


@pytest.mark.parametrize("line", ["not json", "[1]", '{"answer": "4"}'])
def test_a_test_file_without_rows_is_refused(ollama, run, line):
    path = run.folder("data") / "test.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text(line)
    with pytest.raises(ChangedInput, match="does not hold rows"):
        register(RECIPE, run, silent, PLAIN)


def test_again_uploads_nothing(ollama, run):
    first = register(RECIPE, run, silent, PLAIN)
    again = register(RECIPE, run, silent, PLAIN)
    assert ollama.calls("POST /api/blobs") == 2
    assert again.facts["models"][0]["blob"] == "was there, could not be read from here"
    assert again.same_work(first)


def test_another_name(ollama, run):
    register(RECIPE, run, silent, RegisterOptions(name="me/other"))
    assert list(ollama.models) == ["me/other", "me/other:q4_k_m"]
    with pytest.raises(RecipeError, match="no model names"):
        register(RECIPE, run, silent, RegisterOptions(name="no name"))


def test_a_strangers_model_is_not_replaced(ollama, run):
    stranger = {"files": {"a": f"sha256:{'0' * 64}"}}
    ollama.models["my-model:q4_k_m"] = stranger
    with pytest.raises(PipeError, match="my-model:q4_k_m that no run here made") as error:
        register(RECIPE, run, silent, PLAIN)
    assert "--force" in error.value.hint
    assert ollama.models == {"my-model:q4_k_m": stranger}
    assert not ollama.blobs
    assert run.manifest("serve") is None
    register(RECIPE, run, silent, RegisterOptions(force=True))
    assert sorted(ollama.models) == NAMES


def test_a_model_of_any_run_here_is_replaced(ollama, run, tmp_path):
    register(RECIPE, new_run(tmp_path, "older"), silent, PLAIN)
    register(RECIPE, run, silent, PLAIN)
    assert ollama.models["my-model"]["files"] == {"demo-Q8_0.gguf": digest(run, "Q8_0")}


def test_another_runs_broken_manifest_does_not_matter(ollama, run, tmp_path):
    path = tmp_path / "runs" / "broken" / "serve" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    register(RECIPE, run, silent, PLAIN)


def test_another_machine_gets_nothing_unasked(run, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "192.0.2.1")
    with pytest.raises(PipeError, match=r"(?s)not this machine.*--allow-remote"):
        register(RECIPE, run, silent, PLAIN)


@pytest.mark.parametrize("version", ["0.17.0", "0.5.13-rc1", "0.0.0", "", "nightly"])
def test_old_servers_get_no_file(ollama, run, version):
    ollama.version = version
    with pytest.raises(PipeError, match=r"0\.17\.1 or newer.*CVE-2026-7482") as error:
        register(RECIPE, run, silent, PLAIN)
    assert version in error.value.message
    assert len(ollama.seen) == 1


@pytest.mark.parametrize("version", ["0.17.1", "v0.18.0", "1.0.0-rc2"])
def test_newer_servers_do(ollama, run, version):
    ollama.version = version
    assert register(RECIPE, run, silent, PLAIN).versions == {"ollama": version}


def test_no_server(run, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
    with pytest.raises(OllamaUnreachable, match="ollama serve"):
        register(RECIPE, run, silent, PLAIN)


FAULTS = {
    "error line": ("POST /api/create", lines({"status": "parsing"}, {"error": "bad GGUF"})),
    "no success": ("POST /api/create", lines({"status": "writing manifest"})),
    "500": ("POST /api/create", reply(500, {"error": "disk is full"})),
    "mismatch": ("POST /api/blobs", reply(400, {"error": "digest mismatch"})),
    "broken create": ("POST /api/create", cut(9)),
    "broken upload": ("POST /api/blobs", cut(9)),
    "runner died": ("POST /api/chat", reply(500, {"error": "llama-server died"})),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_publishes_nothing(ollama, run, fault):
    ollama.faults = dict([FAULTS[fault]])
    with pytest.raises((OllamaRefused, OllamaUnreachable)):
        register(RECIPE, run, silent, PLAIN)
    assert run.manifest("serve") is None
    ollama.faults = {}
    register(RECIPE, run, silent, PLAIN)
    assert list(ollama.models) == NAMES


def test_a_failed_create_says_that_nothing_was_made(ollama, run):
    ollama.faults = dict([FAULTS["error line"]])
    with pytest.raises(OllamaRefused, match=r"bad GGUF\. No model my-model was made\."):
        register(RECIPE, run, silent, PLAIN)


def test_a_failed_create_says_that_the_old_model_stands(ollama, run, tmp_path):
    register(RECIPE, new_run(tmp_path, "older"), silent, PLAIN)
    ollama.faults = dict([FAULTS["error line"]])
    with pytest.raises(OllamaRefused, match="my-model that was there before is as it was"):
        register(RECIPE, run, silent, PLAIN)


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ("weights", {"modelfile": f"FROM /blobs/sha256-{'0' * 64}\n"}),
        ("template", {"template": "{{ .Prompt }}"}),
        ("parameters", {"parameters": "temperature 0.8"}),
        ("license", {"license": "other"}),
        ("thinking", {"capabilities": ["completion"]}),
    ],
)
def test_a_model_that_reads_back_otherwise_is_refused(ollama, run, monkeypatch, what, shown):
    honest = ollama.shown
    monkeypatch.setattr(ollama, "shown", lambda name: honest(name) | shown, raising=False)
    with pytest.raises(PipeError, match=rf"my-model, .*differs in: {what}\.") as error:
        register(RECIPE, run, silent, PLAIN)
    assert "my-model is there, unproven" in error.value.message
    assert "pipe register" in error.value.hint


def test_a_model_that_repeats_itself_is_announced(ollama, run):
    ollama.faults["POST /api/chat"] = lines(
        {"message": {"content": "a"}}, {"error": "prediction aborted, token repeat limit reached"}
    )
    events = []
    models = register(RECIPE, run, events.append, PLAIN).facts["models"]
    assert models[0]["asked"]["done_reason"] == "token repeat limit reached"
    assert any(isinstance(event, Note) and event.warning for event in events)


def test_a_reply_that_was_cut_is_announced(ollama, run):
    ollama.faults["POST /api/chat"] = lines({"done": True, "done_reason": "length"})
    notes = []
    register(RECIPE, run, notes.append, PLAIN)
    told = f"did not end its reply in {min(RECIPE.eval.max_new_tokens, 512)} tokens"
    assert any(told in getattr(note, "text", "") for note in notes)


def test_without_an_export_there_is_nothing_to_register(tmp_path):
    with pytest.raises(MissingInput, match="pipe export"):
        register(RECIPE, Run(tmp_path / "runs" / "empty"), silent, PLAIN)


def test_a_changed_file_is_not_uploaded(ollama, run):
    (run.folder("export") / "demo-Q8_0.gguf").write_text("rotten")
    with pytest.raises(ChangedInput, match="pipe export --force"):
        register(RECIPE, run, silent, PLAIN)
    assert not ollama.seen


def test_another_chat_format_or_type_needs_another_export(ollama, run):
    recipe = demo("export.quantize=[F16]")
    with pytest.raises(ChangedInput, match="holds no F16"):
        register(recipe, run, silent, PLAIN)
    manifest = run.manifest("export")
    replace(manifest, chat_format={"name": "other"}).write(run.folder("export"))
    with pytest.raises(ChangedInput, match="another chat format"):
        register(RECIPE, run, silent, PLAIN)


def test_the_command_to_run_later():
    command = registration_command(Run(Path("runs/my run")))
    assert command == "pipe register -r 'runs/my run/recipe.yaml' --run 'my run'"


def test_the_command_names_a_run_that_lies_elsewhere_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run(Path("runs/demo/compare/runs/r-8"))
    run.keep_recipe(RECIPE)
    named = shlex.split(registration_command(run))[-1]
    assert Run.of(RECIPE, named) == run
