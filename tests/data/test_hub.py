"""The hub path, for real: datasets and huggingface_hub against a loopback hub."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.data import prepare
from pipeline.recipe import Recipe
from pipeline.run import Note, Run
from tests.data.hub_runs import CARD, GATED, LINES, NAME, ask, job, write_dataset, write_lines
from tests.support.hub import HubServer, commit_of
from tests.support.tokenizer import write_base


@dataclass
class Session:
    """What one process was told by one hub, and the commits that were served."""

    folder: Path
    answers: dict
    commits: dict


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    dataset, lines = write_dataset(folder / "dataset"), write_lines(folder / "lines")
    commits = {"v0": commit_of(dataset), "lines": commit_of(lines)}
    repos = {("dataset", NAME): dataset, ("dataset", LINES): lines, ("dataset", GATED): lines}
    jobs = {
        "v0": job(folder, config="v0", limit=25, run="a"),
        "v1": job(folder, config="v1", revision=commits["v0"], run="b"),
        "lines": job(folder, dataset=LINES, revision="main", run="c"),
        "config": job(folder, config="v9", run="d"),
        "split": job(folder, config="v0", split="test", run="e"),
        "revision": job(folder, config="v0", revision="old", run="f"),
        "missing": job(folder, dataset="nobody/nothing", run="g"),
        "gated": job(folder, dataset=GATED, run="h"),
    }
    newer = {"write": str(dataset / "README.md"), "text": CARD + "newer\n"}
    later = {
        "again": job(folder, config="v0", limit=25, run="a"),
        "forced": job(folder, config="v0", limit=25, run="a", force=True),
    }
    with HubServer(repos, gated=frozenset({GATED})).running() as hub:
        answers = ask(folder, hub.url, *jobs.values(), newer, *later.values())
    commits["newer"] = commit_of(dataset)
    return Session(folder, dict(zip([*jobs, *later], answers, strict=True)), commits)


@pytest.mark.e2e
def test_a_hub_dataset_is_streamed_pinned_and_recorded(session):
    v0, commit = session.answers["v0"], session.commits["v0"]
    assert v0["counts"] == {"train": 25, "eval": 0, "test": 0, "general": 64, "rejects": 0}
    fact = v0["facts"]["sources"][0]
    assert (fact["dataset"], fact["config"], fact["split"]) == (NAME, "v0", "train")
    assert fact["revision"] == commit
    assert v0["inputs"][-1] == f"source-0/{NAME}@{commit}"


@pytest.mark.e2e
def test_another_config_and_a_branch_name(session):
    assert session.answers["v1"]["counts"]["train"] == 30
    lines = session.answers["lines"]
    assert lines["counts"]["train"] == 1
    assert lines["facts"]["sources"][0]["revision"] == session.commits["lines"]


@pytest.mark.e2e
def test_a_second_prepare_keeps_the_commit_until_forced(session):
    again, forced = session.answers["again"], session.answers["forced"]
    assert again | {"notes": []} == session.answers["v0"]
    assert again["notes"] == ["data is up to date"]
    revision = forced["facts"]["sources"][0]["revision"]
    assert revision == session.commits["newer"] != session.commits["v0"]


@pytest.mark.e2e
def test_a_second_prepare_asks_no_hub(session):
    recipe = Recipe.model_validate(job(session.folder, config="v0", limit=25)["recipe"])
    events = []
    # this process knows of no hub
    prepare(recipe, Run(session.folder / "a"), events.append)
    assert events == [Note("data is up to date")]


@pytest.mark.e2e
def test_a_config_that_the_registry_does_not_know(session):
    assert session.answers["config"][0] == (
        f"The registry knows no config v9 of {NAME}; it knows: v0, v1."
    )


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["split", "revision"])
def test_what_the_dataset_does_not_have_is_named(session, name):
    message, hint = session.answers[name]
    assert message.startswith(f"The hub has no dataset {NAME} that you may read: ")
    assert "config, split, revision" in hint


@pytest.mark.e2e
def test_a_missing_dataset_is_named(session):
    message, _ = session.answers["missing"]
    assert message.startswith("The hub has no dataset nobody/nothing that you may read: 404")


@pytest.mark.e2e
def test_a_gated_dataset_says_how_to_get_in(session):
    message, hint = session.answers["gated"]
    assert message.startswith(f"The dataset {GATED} is gated: ")
    assert hint == (
        f"Accept its terms at https://huggingface.co/datasets/{GATED}, "
        "then: export HF_TOKEN=... and run it again."
    )


@pytest.mark.e2e
def test_a_hub_that_does_not_answer(tmp_path):
    ((message, hint),) = ask(tmp_path, "http://127.0.0.1:9", job(tmp_path))
    assert message.startswith(f"The dataset {NAME} cannot be fetched: ")
    assert hint.startswith("Check the network and run it again")


@pytest.mark.e2e
def test_open_base_takes_a_snapshot_from_the_hub(tmp_path):
    name = "some/tiny-llama"
    folder = write_base(tmp_path / "repository")
    (folder / "script.py").write_text("raise SystemExit")
    with HubServer({("model", name): folder}).running() as hub:
        found, missing = ask(
            tmp_path,
            hub.url,
            job(tmp_path, base=True, model=name),
            job(tmp_path, base=True, model="nobody/nothing"),
        )
    files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert found == [commit_of(folder), files]
    assert missing[0].startswith("The base nobody/nothing cannot be fetched: 404")


@pytest.mark.e2e
def test_a_malformed_line_on_the_hub_says_how_to_go_on(tmp_path):
    folder = write_lines(tmp_path / "lines")
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"id": 3, "problem": \n')
    with HubServer({("dataset", LINES): folder}).running() as hub:
        ((message, hint),) = ask(tmp_path, hub.url, job(tmp_path, dataset=LINES))
    assert message.startswith(f"The dataset {LINES} cannot be read as a table: ")
    assert hint.startswith("Download one of its .jsonl or .parquet files")


@pytest.mark.e2e
def test_the_token_comes_from_the_environment_alone_and_is_written_nowhere(tmp_path):
    planted, stored = "hf_plantedplantedplanted", "hf_storedstoredstored"
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(stored)
    lines = write_lines(tmp_path / "lines")
    with HubServer({("dataset", LINES): lines}).running() as hub:
        ask(tmp_path, hub.url, job(tmp_path, dataset=LINES, run="a"))
        assert hub.tokens == set()
        ask(tmp_path, hub.url, job(tmp_path, dataset=LINES, run="b"), HF_TOKEN=planted)
        assert hub.tokens == {f"Bearer {planted}"}
    for path in (tmp_path / "b").rglob("*"):
        assert path.is_dir() or planted.encode() not in path.read_bytes()


@pytest.mark.e2e
def test_offline_reads_what_was_downloaded_before(tmp_path):
    lines = write_lines(tmp_path / "lines")
    download = (
        "from huggingface_hub import snapshot_download as d\n"
        f"d({LINES!r}, repo_type='dataset', token=False)"
    )
    offline = {"HF_HUB_OFFLINE": "1"}
    with HubServer({("dataset", LINES): lines}).running() as hub:
        (missing,) = ask(tmp_path, hub.url, job(tmp_path, dataset=LINES), **offline)
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        subprocess.run([sys.executable, "-c", download], env=os.environ | environment, check=True)
        hub.requests.clear()
        (found,) = ask(tmp_path, hub.url, job(tmp_path, dataset=LINES), **offline)
        assert hub.requests == []
    assert missing[0].startswith(f"HF_HUB_OFFLINE is set, and the dataset {LINES} is not in the")
    assert missing[1].endswith(f"hf download --repo-type dataset {LINES}")
    assert found["counts"]["train"] == 1
    assert found["facts"]["sources"][0]["revision"] == commit_of(lines)


@pytest.mark.e2e
def test_a_script_in_a_dataset_is_never_run(tmp_path):
    folder = tmp_path / "scripted"
    folder.mkdir()
    mark = tmp_path / "ran"
    (folder / "scripted.py").write_text(f"open({str(mark)!r}, 'w')\n")
    with HubServer({("dataset", "some/scripted"): folder}).running() as hub:
        ((message, _),) = ask(tmp_path, hub.url, job(tmp_path, dataset="some/scripted"))
    assert "some/scripted" in message
    assert not mark.exists()
