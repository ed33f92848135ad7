"""Every known dataset by golden rows: some of its records, and what they become."""

import json
from pathlib import Path

import pytest

from pipeline.data.read.detect import detect
from pipeline.data.read.registry import Entry, entries
from pipeline.data.read.rows import Row, required, to_row

GOLDEN = Path(__file__).parent / "golden"


def golden_file(entry: Entry) -> Path:
    """The config's own file, else the one for all configs of the dataset."""
    name = entry.id.partition("/")[2]
    own = GOLDEN / f"{name}.{entry.config}.jsonl"
    return own if own.exists() else GOLDEN / f"{name}.jsonl"


def golden(entry: Entry) -> list[dict]:
    lines = golden_file(entry).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def everywhere(test):
    return pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)(test)


@everywhere
def test_golden_records_become_the_golden_rows(entry):
    for case in golden(entry):
        row = to_row(entry.columns, case["record"], "row 1", entry.id)
        found = {"row": row.as_dict()} if isinstance(row, Row) else {"reject": row.reason}
        expected = {key: case[key] for key in ("row", "reject") if key in case}
        assert found == expected, case["about"]


@everywhere
def test_golden_records_have_every_column_that_the_entry_names(entry):
    names = entry.columns
    extras = (names.id, names.source, names.system, names.reference, names.input)
    wanted = required(names) | {path.partition(".")[0] for path in extras if path}
    assert wanted <= {column for case in golden(entry) for column in case["record"]}


@everywhere
def test_golden_rows_have_the_form_that_the_entry_says(entry):
    rows = [case["row"] for case in golden(entry) if "row" in case]
    assert rows
    assert all((row["reasoning"] is None) == (entry.form == "direct") for row in rows)
    replies = json.dumps([case["record"] for case in golden(entry) if "row" in case])
    assert ("<|begin_of_thought|>" in replies) == (entry.form == "thought")
    assert ("<answer>" in replies) == (entry.form == "wrapped")
    assert bool(entry.columns.messages) == (
        entry.form in ("chat", "thought", "wrapped") or entry.id.endswith("dolphin-r1")
    )
    assert bool(entry.columns.candidates) == (entry.form == "candidates")
    assert bool(entry.columns.reasoning) == (entry.form == "separate")


@everywhere
def test_detection_would_find_columns_that_read_the_golden_records_as_well(entry):
    """Neither the registry nor detection is then likely to be wrong alone."""
    head = [case["record"] for case in golden(entry)]
    found = detect(head)
    assert found is not None
    for case in golden(entry):
        row = to_row(found, case["record"], "row 1", entry.id)
        if "row" in case and isinstance(row, Row) and "gemini" not in str(found.reasoning):
            assert (row.question, row.reasoning, row.answer) == (
                case["row"]["question"],
                case["row"]["reasoning"],
                case["row"]["answer"],
            ), case["about"]
        assert isinstance(row, Row) or "row" not in case


def test_every_golden_file_belongs_to_an_entry():
    assert {golden_file(entry) for entry in entries()} == set(GOLDEN.glob("*.jsonl"))
