"""A dataset too large to be fetched whole: read as far as it is needed, and gone on with."""

import pytest

from tests.data.hub_runs import ask, job, write_large
from tests.support.hub import HubServer, commit_of

LARGE = "some/large"
COLUMNS = {"question": "problem", "reply": "reannotated_assistant_content"}
HALF = {"dataset": LARGE, "columns": COLUMNS, "limit": 4000}


@pytest.mark.e2e
def test_a_limit_reads_only_what_it_needs_of_a_large_dataset(tmp_path):
    large = write_large(tmp_path / "large")
    size = sum(path.stat().st_size for path in large.iterdir())
    with HubServer({("dataset", LARGE): large}).running() as hub:
        limited = job(tmp_path, dataset=LARGE, columns=COLUMNS, limit=300)
        (answer,) = ask(tmp_path, hub.url, limited)
        assert answer["counts"]["train"] == 300
        assert hub.sent < size / 3
    assert size > 9_000_000


@pytest.mark.e2e
def test_an_interrupted_download_goes_on_in_the_stream(tmp_path):
    large = write_large(tmp_path / "large")
    with HubServer({("dataset", LARGE): large}).running() as hub:
        whole, stopped = ask(
            tmp_path, hub.url, job(tmp_path, run="a", **HALF), job(tmp_path, parts=31, **HALF)
        )
        before = hub.sent
        (again,) = ask(tmp_path, hub.url, job(tmp_path, **HALF))
        after = hub.sent - before
    assert stopped == "interrupted"
    assert again["notes"] == [f"{LARGE}: goes on after 3100 records prepared before."]
    assert after < before / 2
    assert again["counts"] == whole["counts"]
    for name in ("train.jsonl", "stats.json", "encoded/train.arrow", "manifest.json"):
        made = [(tmp_path / run / "data" / name).read_bytes() for run in ("a", "run")]
        assert made[0] == made[1]


@pytest.mark.e2e
def test_a_stream_resumed_again_and_again_loses_no_row(tmp_path):
    """Chunks of 100 over row groups of 130: the library's own state would pass over rows."""
    large = write_large(tmp_path / "large", group=130)
    stops = [3, 1, 1, 2, 1]
    jobs = [job(tmp_path, parts=parts, **HALF) for parts in stops]
    with HubServer({("dataset", LARGE): large}).running() as hub:
        whole, *_ = ask(tmp_path, hub.url, job(tmp_path, run="a", **HALF))
        for each in jobs:
            assert ask(tmp_path, hub.url, each) == ["interrupted"]
        (again,) = ask(tmp_path, hub.url, job(tmp_path, **HALF))
    assert again["notes"] == [f"{LARGE}: goes on after 800 records prepared before."]
    assert again["counts"] == whole["counts"]
    made = [(tmp_path / run / "data" / "train.jsonl").read_bytes() for run in ("a", "run")]
    assert made[0] == made[1]


@pytest.mark.e2e
def test_an_interrupted_prepare_keeps_its_commit_though_the_hub_moves(tmp_path):
    large = write_large(tmp_path / "large")
    commit = commit_of(large)
    with HubServer({("dataset", LARGE): large}, kept=frozenset({commit})).running() as hub:
        ask(tmp_path, hub.url, job(tmp_path, parts=5, **HALF))
        newer = {"write": str(large / "README.md"), "text": "newer"}
        (again,) = ask(tmp_path, hub.url, newer, job(tmp_path, **HALF))
    assert again["facts"]["sources"][0]["revision"] == commit != commit_of(large)
    assert again["notes"] == [f"{LARGE}: goes on after 500 records prepared before."]
