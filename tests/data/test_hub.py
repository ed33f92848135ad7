"""The hub path, for real: datasets and huggingface_hub against a loopback hub."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.data import prepare
from pipeline.recipe import Recipe
from pipeline.run import Note, Run
from tests.support.hub import HubServer, commit_of
from tests.support.tokenizer import write_base

NAME = "ServiceNow-AI/R1-Distill-SFT"
LINES, GATED = "some/lines", "some/gated"
CARD = """---
configs:
- config_name: v0
  data_files: [{split: train, path: v0/*.parquet}]
- config_name: v1
  data_files: [{split: train, path: v1/*.parquet}]
---
"""
REPLY = "<think>\nOne more.\n</think>\n\nIt is {}."

# huggingface_hub reads HF_ENDPOINT when it is imported, so every hub gets its own process
DRIVER = """
import json, sys
from pathlib import Path
from pipeline.base import open_base
from pipeline.data import prepare
from pipeline.errors import PipeError
from pipeline.recipe import Recipe
from pipeline.run import Run, silent

for job in json.load(sys.stdin):
    if "write" in job:
        Path(job["write"]).write_text(job["text"])
        continue
    recipe = Recipe.model_validate(job["recipe"])
    try:
        if job.get("base"):
            base = open_base(recipe.model)
            answer = [base.revision, sorted(path.name for path in base.folder.iterdir())]
        else:
            made = prepare(recipe, Run(Path(job["run"])), silent, force=job["force"])
            answer = {"facts": made.facts, "counts": made.counts, "inputs": list(made.inputs)}
    except PipeError as error:
        answer = [error.message, error.hint]
    print(json.dumps(answer))
"""


def write_dataset(folder):
    import pyarrow as pa
    from pyarrow import parquet

    (folder / "v0").mkdir(parents=True)
    (folder / "v1").mkdir()
    (folder / "README.md").write_text(CARD)
    v0 = [
        {"id": f"a{n}", "problem": f"{n} + 1?", "reannotated_assistant_content": REPLY.format(n)}
        for n in range(40)
    ]
    parquet.write_table(pa.Table.from_pylist(v0), folder / "v0" / "train-0.parquet")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": REPLY.format(1)}]
    before = [{"role": "user", "content": "before R1"}]
    v1 = [{"id": n, "reannotated_messages": turns, "messages": before} for n in range(30)]
    parquet.write_table(pa.Table.from_pylist(v1), folder / "v1" / "train-0.parquet")
    return folder


def write_lines(folder):
    folder.mkdir()
    line = {"id": None, "problem": "Why?", "reannotated_assistant_content": REPLY.format(2)}
    (folder / "train.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def job(tmp_path, *, run="run", force=False, base=False, model=None, **source):
    name = model or str(write_base(tmp_path / "base"))
    source = {"dataset": NAME} | source
    data = {"sources": [source], "eval_share": 0, "test_share": 0}
    recipe = {"name": "t", "model": {"base": name, "max_seq_length": 256}, "data": data}
    return {"recipe": recipe, "run": str(tmp_path / run), "force": force, "base": base}


def ask(tmp_path, url, *jobs, **environment):
    """The driver's answer to each job, from one process whose hub is at `url`."""
    kept = {k: v for k, v in os.environ.items() if "TOKEN" not in k and "proxy" not in k.lower()}
    hub = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "USE_TORCH": "0"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(jobs),
        env=kept | hub | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


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
    assert v0["counts"] == {"train": 25, "eval": 0, "test": 0, "rejects": 0}
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
    assert again == session.answers["v0"]
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
@pytest.mark.parametrize("name", ["config", "split", "revision"])
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


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_a_hub_that_does_not_answer(tmp_path, environment):
    ((message, hint),) = ask(tmp_path, "http://127.0.0.1:9", job(tmp_path), **environment)
    assert message.startswith(f"The dataset {NAME} cannot be fetched: ")
    assert hint.startswith("Check the network and run it again")


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
