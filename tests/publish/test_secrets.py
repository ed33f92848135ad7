"""A token, a folder of this machine and an address stay where they are."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pipeline.card import public_name, public_recipe, public_text
from pipeline.cli import main
from pipeline.recipe import load
from tests.publish.runs import COMMIT, Maker, write_recipe

PLACE = "/home/alice/secret-project"


def test_a_planted_token_is_in_no_request_body_no_file_and_no_line(hub, elsewhere, tmp_path):
    write_recipe(elsewhere, description=f"with {hub.token} in it")
    made = Maker().whole()
    made.run.keep_recipe(made.recipe)
    (elsewhere / "pipe.yaml").rename(tmp_path / "pipe.yaml")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    outputs = [
        CliRunner().invoke(main, ["publish", "me/thinker", "-r", str(tmp_path / "pipe.yaml")])
        for _ in range(2)
    ]
    hub.token += "changed"
    outputs.append(CliRunner().invoke(main, ["publish", "me/thinker"]))
    token = hub.token.removesuffix("changed")
    assert [done.exit_code for done in outputs[:2]] == [0, 0]
    assert outputs[2].exit_code != 0
    assert all(token not in done.output for done in outputs)
    assert all(token.encode() not in body for body in hub.bodies)
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(token.encode() not in path.read_bytes() for path in written)


def test_a_file_that_holds_the_token_stops_everything(hub):
    made = Maker().whole()
    weights = made.run.folder("train") / "adapter" / "adapter_model.safetensors"
    made._publish(
        "train",
        {
            "adapter/adapter_config.json": b"{}",
            "adapter/adapter_model.safetensors": b"x" * 5000 + hub.token.encode() + b"y" * 5000,
        },
        made.run.manifest("train").facts,
        counts={"steps": 1},
    )
    assert hub.token.encode() in weights.read_bytes()
    made.export("apache-2.0")
    done = CliRunner().invoke(main, ["publish", "me/thinker"])
    assert done.exit_code == 1
    assert (
        "adapter_model.safetensors holds your token for the hub. Nothing was sent." in done.stderr
    )
    assert hub.token not in done.output
    assert not hub.requests


def test_no_folder_of_this_machine_is_published(hub, elsewhere, tmp_path):
    base = tmp_path / "models" / "My-Qwen"
    rows = tmp_path / "rows" / "mine.jsonl"
    write_recipe(
        elsewhere,
        description=f"from {PLACE}/notes.txt",
        model={"base": str(base)},
        data={"sources": [{"dataset": str(rows)}], "test": {"dataset": f"{PLACE}/t.jsonl"}},
        export={"importance": {"file": f"{PLACE}/imatrix.gguf"}},
        eval={
            "tasks": ["test", f"{PLACE}/task.yaml"],
            "endpoint": {"url": "http://10.1.2.3:8000/v1", "model": "m", "key_env": "MY_KEY"},
        },
    )
    made = Maker().whole([{"dataset": str(rows), "rows": 7}])
    made.check("failed", "passed")
    done = CliRunner().invoke(main, ["publish", "me/thinker", "--force"])
    assert done.exit_code == 0, done.output
    everything = b"\n".join(hub.repos["me/thinker"].files.values())
    for secret in (str(tmp_path), "/home/alice", "secret-project", "10.1.2.3", "MY_KEY"):
        assert secret.encode() not in everything
    card = hub.repos["me/thinker"].files["README.md"].decode()
    assert "| mine.jsonl | 7 | not known | – |" in card
    assert "  base: My-Qwen\n" in card and "file: imatrix.gguf" in card
    assert "base_model" not in card.split("---\n")[1]
    config = hub.repos["me/thinker"].files["adapter_config.json"].decode()
    assert '"base_model_name_or_path": "My-Qwen"' in config
    assert "is_local" not in hub.repos["me/thinker"].files["tokenizer_config.json"].decode()


def test_a_file_with_a_path_that_nobody_foresaw_stops_everything(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "alice"))
    made = Maker().whole()
    made._publish(
        "train",
        {
            "adapter/adapter_config.json": b"{}",
            "adapter/adapter_model.safetensors": b"x" * 100,
            "adapter/extra.json": f'{{"log": "{tmp_path}/alice/log"}}'.encode(),
        },
        made.run.manifest("train").facts,
        counts={"steps": 1},
    )
    made.export("apache-2.0")
    done = CliRunner().invoke(main, ["publish", "me/thinker"])
    assert "extra.json names a folder of this machine. Nothing was sent." in done.stderr
    assert not hub.requests


def test_the_recipe_is_pinned_to_the_commits_that_were_read():
    recipe = load("llama3.2-3b-r1").recipe
    facts = {
        "base": {"name": recipe.model.base, "revision": COMMIT},
        "sources": [{"dataset": recipe.data.sources[0].dataset, "revision": "b" * 40}],
    }
    said = yaml.safe_load(public_recipe(recipe, facts))
    assert (said["model"]["base"], said["model"]["revision"]) == (recipe.model.base, COMMIT)
    assert [each["revision"] for each in said["data"]["sources"]] == ["b" * 40]


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("open-r1/OpenR1-Math-220k", "open-r1/OpenR1-Math-220k"),
        ("gsm8k", "gsm8k"),
        ("builtin:samples/train.jsonl", "builtin:samples/train.jsonl"),
        ("rows/mine.jsonl", "mine.jsonl"),
        ("../secret/rows", "rows"),
        ("~/models/Qwen", "Qwen"),
        (r"C:\Users\alice\model", "model"),
        ("a/b/c", "c"),
    ],
)
def test_names_are_cut_where_they_are_paths(name, public):
    assert public_name(name) == public


def test_a_name_that_looks_like_the_hubs_is_cut_where_it_was_read_from_a_folder():
    assert public_name("alice/model", on_hub=False) == "model"


PARTS = st.text("abcXYZ019_-", min_size=1, max_size=8)


@given(st.lists(PARTS, min_size=2, max_size=5), st.sampled_from(["/", "~/", "../", "./"]))
def test_no_folder_is_left_of_a_path_in_a_text(parts, begin):
    path = begin + "/".join(parts)
    shown = public_text(f"see {path} and 'x={path}'")
    assert "/" not in shown
    assert Path(path).name in shown


@given(st.text("abcXYZ019", min_size=20, max_size=40))
def test_no_token_is_left_in_a_text(secret):
    assert secret not in public_text(f"export HF_TOKEN=hf_{secret}; run")
