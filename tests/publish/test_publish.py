"""`pipe publish`, through the hub's own client, against a loopback hub."""

import hashlib
import json

import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli import main
from tests.publish.runs import BOUND, COMMIT, FREE, LLAMA, Maker, write_recipe

WEIGHTS = {"adapter_config.json", "adapter_model.safetensors"}
WEIGHTS |= {"tokenizer.json", "tokenizer_config.json"}
GGUFS = {"thinker-Q8_0.gguf", "thinker-Q4_K_M.gguf", "Modelfile", "Modelfile.Q4_K_M"}
GGUFS |= {"template", "params"}
ALWAYS = {"README.md", "LICENSE"}


def pipe(*arguments, code=0):
    done = CliRunner().invoke(main, ["publish", *arguments])
    assert done.exit_code == code, done.output
    return done


def sent(hub, name="me/thinker"):
    return {path: text for path, text in hub.repos[name].files.items() if path != ".gitattributes"}


def llama(folder, base=LLAMA, sources=(FREE,), license="llama3.2", **changes):
    write_recipe(folder, model={"base": base}, **changes)
    return Maker().whole(sources, base_revision=COMMIT, license=license)


def test_a_run_becomes_a_repository_of_one_commit(hub):
    made = Maker().whole()
    done = pipe("me/thinker")
    files = sent(hub)
    assert set(files) == ALWAYS | WEIGHTS | GGUFS
    export = made.run.folder("export")
    assert files["thinker-Q8_0.gguf"] == (export / "my-model-Q8_0.gguf").read_bytes()
    assert files["Modelfile"].startswith(b"FROM ./thinker-Q8_0.gguf\n")
    assert files["Modelfile.Q4_K_M"].startswith(b"FROM ./thinker-Q4_K_M.gguf\n")
    assert len(hub.repos["me/thinker"].messages) == 1
    assert f"12 files, commit {hub.repos['me/thinker'].commits[-1]}" in done.stdout
    assert not hub.repos["me/thinker"].private


def test_ollama_gets_its_own_template_and_the_modelfiles_parameters_from_hf_co(hub):
    made = Maker().whole()
    pipe("me/thinker")
    files = sent(hub)
    assert files["template"].decode() == made.run.manifest("export").facts["template"]
    assert ".Thinking" in files["template"].decode()
    params = json.loads(files["params"])
    assert params["num_ctx"] == 1024 and params["temperature"] == 0.6
    assert "<|eot_id|>" in params["stop"]


def test_the_card_lists_the_sha256_of_every_other_file_as_it_was_sent(hub):
    Maker().whole()
    result = json.loads(pipe("me/thinker", "--json").stdout)
    files = sent(hub)
    card = files.pop("README.md").decode()
    for path, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        assert f"| `{digest}` |" in card
        assert result["files"][path] == {"bytes": len(content), "sha256": digest}


@pytest.mark.parametrize(("only", "parts"), [("adapter", WEIGHTS), ("gguf", GGUFS)])
def test_one_part_alone(hub, only, parts):
    Maker().whole()
    pipe("me/thinker", "--only", only)
    assert set(sent(hub)) == ALWAYS | parts


def test_a_model_trained_in_full_lies_at_the_top(hub, elsewhere):
    write_recipe(elsewhere, train={"method": "full"})
    Maker().whole()
    pipe("me/thinker", "--only", "adapter")
    assert {"config.json", "model.safetensors"} < set(sent(hub))
    front = yaml.safe_load(sent(hub)["README.md"].decode().split("---\n")[1])
    assert front["library_name"] == "transformers"


def test_the_same_run_again_makes_no_commit_and_sends_nothing(hub):
    Maker().whole()
    pipe("me/thinker")
    uploads = hub.uploads()
    again = pipe("me/thinker")
    assert "no change, no new commit" in again.stdout
    assert len(hub.repos["me/thinker"].messages) == 1
    assert hub.uploads() == uploads


def test_an_upload_that_was_cut_off_goes_on_and_ends_the_same(hub):
    Maker().whole()
    hub.cut_after = 1
    done = pipe("me/thinker", code=1)
    assert "me/thinker is not published: Error while uploading" in done.stderr
    assert "Run it again: it goes on where it was" in done.stderr
    assert not hub.repos["me/thinker"].messages
    kept = hub.uploads()
    assert len(kept) == 1
    hub.cut_after = None
    pipe("me/thinker")
    # each large file came once in all
    assert len(hub.uploads()) == len(set(hub.uploads())) == 3
    assert set(sent(hub)) == ALWAYS | WEIGHTS | GGUFS


def test_a_private_repository_is_made_private(hub):
    Maker().whole()
    assert json.loads(pipe("me/thinker", "--private", "--json").stdout)["private"]
    assert hub.repos["me/thinker"].private


def test_nothing_private_is_sent_to_a_repository_that_is_public(hub):
    Maker().whole()
    pipe("me/thinker", "--only", "gguf")
    before = sent(hub)
    done = pipe("me/thinker", "--private", code=1)
    assert "is there already, and is public. Nothing was sent." in done.stderr
    assert sent(hub) == before


def test_a_file_that_does_not_arrive_is_missed(hub):
    Maker().whole()
    hub.ignored = frozenset({"params"})
    assert "params did not arrive in me/thinker as it was sent" in pipe("me/thinker", code=1).stderr


def test_files_that_are_not_of_this_run_are_told(hub, elsewhere):
    Maker().whole()
    pipe("me/thinker")
    write_recipe(elsewhere, export={"quantize": ["Q8_0"]})
    Maker().whole()
    told = pipe("me/thinker").stderr
    assert "files that are not of this run: Modelfile.Q4_K_M, thinker-Q4_K_M.gguf" in told


def test_without_a_token_nothing_is_asked(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    Maker().whole()
    done = pipe("me/thinker", code=1)
    assert "There is no token for the hub." in done.stderr
    assert "export HF_TOKEN=" in done.stderr
    assert not hub.requests


def test_the_login_that_the_hub_keeps_is_taken(hub, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(hub.token)
    Maker().whole()
    pipe("me/thinker")
    assert "README.md" in sent(hub)


def test_a_token_that_the_hub_does_not_take(hub, monkeypatch):
    planted = "hf_plantedplantedplanted"
    monkeypatch.setenv("HF_TOKEN", planted)
    Maker().whole()
    done = pipe("me/thinker", code=1)
    assert "The hub does not take this token" in done.stderr
    assert planted not in done.output


def test_a_token_of_another_owner(hub):
    Maker().whole()
    assert "This token may not write to you/thinker" in pipe("you/thinker", code=1).stderr
    assert not hub.repos


def test_a_hub_that_does_not_answer(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    Maker().whole()
    done = pipe("me/thinker", code=1)
    assert "me/thinker is not published: " in done.stderr and "Run it again" in done.stderr


@pytest.mark.parametrize("name", ["thinker", "me/a/b", "me/..", "me/a--b", "me/a b", "/home/me"])
def test_what_is_no_repository_is_wrong_usage(name):
    assert "The hub has no repository names like" in pipe(name, code=2).stderr


def test_a_dry_run_shows_files_and_card_and_asks_no_server(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    Maker().whole()
    done = pipe("me/thinker", "--dry-run")
    assert "me/thinker: 12 files" in done.stdout
    assert "\n# thinker\n" in done.stdout
    assert set(json.loads(pipe("me/thinker", "--dry-run", "--json").stdout)["files"]) == (
        ALWAYS | WEIGHTS | GGUFS
    )
    assert not hub.requests


def test_a_llama_has_a_name_that_begins_so(hub, elsewhere):
    llama(elsewhere)
    done = pipe("me/thinker", code=1)
    assert "is made from Llama 3.2, whose licence has the name" in done.stderr
    assert "Call it: pipe publish me/Llama-3.2-thinker" in done.stderr
    assert not hub.requests
    pipe("me/Llama-3.2-thinker")
    files = sent(hub, "me/Llama-3.2-thinker")
    assert files["NOTICE"].decode() == (
        "Llama 3.2 is licensed under the Llama 3.2 Community License, Copyright © Meta "
        "Platforms, Inc. All Rights Reserved.\n"
    )
    assert files["LICENSE"].decode().startswith("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n")
    assert "\n**Built with Llama.**\n" in files["README.md"].decode()


def test_a_llama_stays_one_whatever_license_the_recipe_states(hub, elsewhere):
    llama(elsewhere, license="mit")
    assert 'name of such a model begin with "Llama"' in pipe("me/thinker", code=1).stderr


def test_a_llama_whose_licence_is_not_at_hand_is_not_sent(hub, elsewhere):
    llama(elsewhere, base="meta-llama/Llama-3.1-8B-Instruct", license="llama3.1")
    done = pipe("me/Llama-3.1-thinker", code=1)
    assert "no copy of it is at hand" in done.stderr and "serve.license" in done.stderr
    assert not hub.requests


def test_a_qwen_has_any_name_and_its_own_licence(hub, elsewhere):
    llama(elsewhere, base="Qwen/Qwen3-0.6B", license="apache-2.0")
    pipe("me/thinker")
    files = sent(hub)
    assert "NOTICE" not in files and b"Built with" not in files["README.md"]
    assert b"Apache License" in files["LICENSE"]


def test_what_binds_the_data_is_said_and_goes_on_the_card(hub, elsewhere):
    llama(elsewhere, base="Qwen/Qwen3-0.6B", sources=[BOUND], license="apache-2.0")
    done = pipe("me/thinker")
    assert f"The model is non-commercial, as {BOUND['dataset']} is" in done.stderr
    card = sent(hub)["README.md"].decode()
    assert "\nlicense: cc-by-nc-sa-4.0\n" in card
    assert "**For non-commercial use**" in card


def test_data_of_unknown_licence_are_announced(hub):
    Maker().whole([{"dataset": "rows/mine.jsonl", "rows": 7}])
    assert "The licence of rows/mine.jsonl is not known here" in pipe("me/thinker").stderr


def test_data_that_allow_no_derived_work_stop_it(hub):
    Maker().whole([{**FREE, "licence": "cc-by-nc-nd-4.0"}])
    assert "No work made from it may be passed on" in pipe("me/thinker", code=1).stderr
    assert not hub.requests
    assert "Published all the same: --force." in pipe("me/thinker", "--force").stderr


def test_a_failed_check_stops_it_unless_forced(hub):
    made = Maker().whole()
    made.check("passed", "failed")
    done = pipe("me/thinker", code=1)
    assert "pipe check failed: gate 1." in done.stderr
    assert not hub.requests
    assert "Published though checks failed" in pipe("me/thinker", "--force").stderr
    card = sent(hub)["README.md"].decode()
    assert "1 of 2 passed. **Failed**: gate 1." in card


def test_what_was_not_checked_or_measured_is_said_with_its_command(hub):
    Maker().whole()
    told = pipe("me/thinker", "--dry-run").stderr
    assert "not checked: pipe check -r runs/demo/recipe.yaml --run demo" in told
    assert "not measured: pipe eval -r runs/demo/recipe.yaml --run demo" in told


def test_checks_and_results_of_earlier_files_do_not_count(hub):
    made = Maker().whole()
    made.check("failed")
    made.evaluate()
    made.export("mit")
    told = pipe("me/thinker", "--dry-run")
    assert "not checked as they are now: pipe check" in told.stderr
    assert "Not measured." in told.stdout and "Not checked." in told.stdout


def test_a_run_that_is_not_whole_is_not_sent(hub):
    assert "Run: pipe prepare" in pipe("me/thinker", code=1).stderr
    made = Maker().whole()
    (made.run.folder("export") / "my-model-Q8_0.gguf").write_bytes(b"GGUF other" * 99)
    assert "is not the file that export wrote" in pipe("me/thinker", code=1).stderr
    assert not hub.requests


def test_a_run_of_another_recipe_is_not_sent(hub):
    Maker().whole()
    done = pipe("me/thinker", "--set", "serve.temperature=0.1", code=1)
    assert "export was made with other settings than the recipe's" in done.stderr
    assert "Run: pipe export" in done.stderr
