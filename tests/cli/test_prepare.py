"""pipe prepare: what it says before, what it shows after."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from tests.cli.support import pipe
from tests.support.tokenizer import write_base

REPLY = "<think>\n{n} and 1.\n</think>\n\nIt is {m}."


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe on 40 rows whose columns nobody has described."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPE_RECIPE", raising=False)
    write_base(tmp_path / "base")
    rows = [
        {"query": f"What is {n} + 1?", "response": REPLY.format(n=n, m=n + 1)} for n in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "name": "t",
        "model": {"base": "base", "max_seq_length": 256},
        "data": {
            "sources": [{"dataset": "rows.jsonl"}],
            "general": {"dataset": "builtin:samples/general.jsonl", "limit": 1},
            "eval_share": 0,
            "test_share": 0,
            "no_thinking_share": 0,
        },
    }
    (tmp_path / "pipe.yaml").write_text(json.dumps(recipe))
    return tmp_path


def test_unknown_columns_are_shown_and_wait_for_yes(here: Path) -> None:
    code, output = pipe("prepare")
    assert code == 1
    assert "The columns of rows.jsonl are not known. 40 of 40 rows read well" in output
    assert "{question: query, reply: response}" in output
    assert "Take that: pipe prepare --yes." in output


def test_dry_run_says_what_stands_in_the_way(here: Path) -> None:
    code, output = pipe("prepare", "--dry-run")
    assert code == 0
    assert "recipe t, run runs/t, data now missing" in output
    assert "rows.jsonl: 40 rows\n" in output
    assert "The columns of rows.jsonl are not known." in output
    assert not (here / "runs").exists()


def test_dry_run_estimates_tokens_and_names_licences(here: Path) -> None:
    code, output = pipe("prepare", "--dry-run", "--yes", "--json")
    assert code == 0
    source = json.loads(output)["sources"][0]
    assert (source["rows"], source["columns"], source["licence"]) == (40, "detected", None)
    assert source["tokens"] == pytest.approx(40 * source["tokens_per_row"], abs=2)
    assert source["tokens"] > 400


def test_dry_run_of_a_known_dataset_names_duties_without_a_network(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    known = "data.sources=[{dataset: ServiceNow-AI/R1-Distill-SFT, config: v0, limit: 500}]"
    code, output = pipe("prepare", "--dry-run", "--set", known)
    assert code == 0
    assert "ServiceNow-AI/R1-Distill-SFT v0 train: 500 rows" in output
    assert "licence: cc-by-nc-sa-4.0 (non-commercial, share-alike)" in output
    assert "HF_HUB_OFFLINE is set" in output


def test_rows_are_shown_with_what_is_learned_between_rules(here: Path) -> None:
    code, output = pipe("prepare", "--yes", "--show", "2")
    assert code == 0
    first, _, rest = output.partition("-------- supervised:\n")
    assert "What is 0 + 1?<|eot_id|>" in first
    learned = rest.partition("-------- end")[0]
    assert learned == "<think>\n0 and 1.\n</think>\n\nIt is 1.<|eot_id|>\n"
    assert output.count("-------- end") == 2


def test_colour_marks_what_is_learned(here: Path) -> None:
    pipe("prepare", "--yes")
    result = CliRunner().invoke(main, ["prepare", "--show", "1"], color=True)
    assert "\x1b[32m<think>\n0 and 1.\n</think>\n\nIt is 1.<|eot_id|>\x1b[0m" in result.output


def test_a_row_does_not_drive_the_terminal(here: Path) -> None:
    rows = here / "rows.jsonl"
    rows.write_text(rows.read_text().replace("What is 0", "\\u001b[2JWhat is 0"))
    _, output = pipe("prepare", "--yes", "--show", "1")
    assert "\ufffd[2JWhat is 0" in output and "\x1b" not in output


def test_a_picture_of_the_rows_lies_beside_them(here: Path) -> None:
    code, output = pipe("prepare", "--yes")
    assert code == 0
    assert "runs/t/data.svg: the rows in a picture" in output
    picture = here / "runs" / "t" / "data.svg"
    before = picture.read_bytes()
    assert b"kept 41" in before and b"rows.jsonl" in before  # with the general row
    picture.unlink()
    pipe("prepare")
    assert picture.read_bytes() == before
