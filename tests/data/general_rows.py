"""Sources of general rows, and what became of them."""

import json

from tests.data.support import general_record, rows_of, write_rows

OWN = 80
"""Rows of the fixture `own`."""


def general(tmp_path, *rows, **source):
    """A general source on a file of these rows."""
    return {"dataset": str(write_rows(tmp_path / "general.jsonl", rows)), **source}


def plain(count):
    return [general_record(n) for n in range(count)]


def ids(run, split):
    return [row["id"] for row in rows_of(run, split)]


def mixed_in(run):
    return [row for row in rows_of(run, "train") if row["id"].startswith("g")]


def manifest_of(run):
    return json.loads((run.folder("data") / "manifest.json").read_text())
