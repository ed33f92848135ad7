"""What a source gives: weights, filters, columns, the loss that is allowed, and what is shown."""

import json
from collections import Counter

import pytest

from pipeline.chat import Encoder, chat_format
from pipeline.data import expected, shown
from pipeline.errors import PipeError
from pipeline.run import Note, Run
from tests.data.support import (
    ALL,
    contents,
    examples,
    prepared,
    reasons,
    recipe_of,
    record,
    rows_of,
    stats_of,
    write_rows,
)


def test_a_date_that_python_cannot_hold_is_a_reject(base, tmp_path):
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist([record(n) for n in range(20)])
    times = np.array([2**60] + [0] * 19, "datetime64[us]")
    parquet.write_table(table.append_column("when", pa.array(times)), tmp_path / "rows.parquet")
    run = prepared(tmp_path / "run", recipe_of(base, tmp_path / "rows.parquet", **ALL))
    (reject,) = rows_of(run, "rejects")
    assert (reject["reason"], reject["where"]) == ("malformed_record", "row 1")


@pytest.mark.parametrize("flag", ["0", "no", False])
def test_a_row_that_its_dataset_calls_wrong_is_dropped(base, tmp_path, flag):
    columns = {"question": "q", "answer": "a", "correct": ["ok"]}
    rows = [{"q": f"{n}?", "a": "b", "ok": "1"} for n in range(10)] + [
        {"q": "x?", "a": "b", "ok": flag}
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    run = prepared(tmp_path / "r", recipe_of(base, {"dataset": str(path), "columns": columns}))
    assert reasons(run) == {"incorrect": 1}


def test_weights_keep_their_proportion_and_interleave(base, tmp_path):
    a = write_rows(tmp_path / "a.jsonl", [record(n, source="a") for n in range(60)])
    b = write_rows(tmp_path / "b.jsonl", [record(n, source="b") for n in range(100, 200)])
    sources = [{"dataset": str(a), "weight": 3}, {"dataset": str(b), "weight": 1}]
    run = prepared(tmp_path / "run", recipe_of(base, *sources, **ALL))
    order = [row["source"] for row in rows_of(run, "train")]
    assert Counter(order) == {"a": 60, "b": 20}
    for end in range(1, 81):
        assert abs(order[:end].count("a") - 0.75 * end) <= 1
    first, second, _ = stats_of(run)["sources"]
    assert (first["left_out"], second["left_out"]) == (0, 80)
    assert contents(prepared(tmp_path / "again", recipe_of(base, *sources, **ALL))) == (
        contents(run)
    )
    other = [sources[0], sources[1] | {"seed": 5}]
    drawn = rows_of(prepared(tmp_path / "other", recipe_of(base, *other, **ALL)), "train")
    assert {row["id"] for row in drawn} != {row["id"] for row in rows_of(run, "train")}


def test_filters_of_a_source_stand_before_those_of_the_recipe(base, tmp_path):
    wrong = record(1, reannotated_assistant_content="<think>\nHm.\n</think>\n\nIt is 5.")
    rows = [wrong, *[record(n) for n in range(10, 20)]]
    a = write_rows(tmp_path / "a.jsonl", rows)
    b = write_rows(tmp_path / "b.jsonl", [{**row, "problem": f"b {row}"} for row in rows])
    lax = {"dataset": str(b), "filters": {"verify": False}}
    run = prepared(tmp_path / "run", recipe_of(base, a, lax, **ALL, max_seq_length=1024))
    (reject,) = rows_of(run, "rejects")
    assert (reject["reason"], reject["where"]) == ("refuted", "line 1")


def test_truncation_cuts_the_reasoning_only(base, tmp_path):
    reasoning = "\n".join(f"Step {n} adds {n}." for n in range(60))
    reply = f"<think>\n{reasoning}\n</think>\n\nIt is 2."
    rows = [record(1, reannotated_assistant_content=reply), *[record(n) for n in range(5, 9)]]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    dropped = prepared(tmp_path / "drop", recipe_of(base, path, **ALL))
    assert reasons(dropped) == {"too_long": 1}
    recipe = recipe_of(base, path, filters={"over_long": "truncate"}, **ALL)
    run = prepared(tmp_path / "cut", recipe)
    cut = rows_of(run, "train")[0]
    assert reasoning.startswith(cut["reasoning"]) and cut["reasoning"].endswith(".")
    assert cut["answer"] == "It is 2."
    encoder = Encoder(base / "tokenizer.json", chat_format("llama3.2-reasoning"))
    ids = examples(run, "train")["input_ids"][0]
    assert 200 < len(ids) <= 256
    assert encoder.text_of(ids).endswith(f"{cut['reasoning']}\n</think>\n\nIt is 2.<|eot_id|>")
    for made in (dropped, run):
        stats = stats_of(made)["sources"][0]
        assert sum(stats["lengths"]["rows"]) == 5
        assert sum(stats["lengths"]["rows"][4:]) == 1
    assert stats_of(run)["sources"][0]["cut"] == 1


def test_a_question_too_long_for_any_cut_is_dropped(base, tmp_path):
    rows = [record(1, problem="word " * 400), *[record(n) for n in range(5, 9)]]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    recipe = recipe_of(base, path, filters={"over_long": "truncate"}, **ALL)
    assert reasons(prepared(tmp_path / "cut", recipe)) == {"too_long": 1}


def test_loss_beyond_what_is_allowed_stops_and_keeps_the_work(base, tmp_path):
    bad = [record(n, reannotated_assistant_content="It is.") for n in range(30, 36)]
    path = write_rows(tmp_path / "rows.jsonl", [*bad, record(1), record(2)])
    run = Run(tmp_path / "run")
    with pytest.raises(PipeError) as error:
        prepared(run.root, recipe_of(base, path, **ALL))
    assert error.value.message == (
        f"6 of 8 rows of {path} are rejected: no_reasoning 6 (first: line 1)."
    )
    assert "max_loss of that source" in error.value.hint
    events = []
    allowed = {"dataset": str(path), "max_loss": 0.8}
    prepared(run.root, recipe_of(base, allowed, **ALL), events.append)
    assert Note(f"{path}: goes on after 8 records prepared before.") in events
    assert len(rows_of(run, "train")) == 2


def test_a_source_of_nothing_but_bad_rows_stops_early(base, tmp_path):
    bad = [record(n, reannotated_assistant_content="It is.") for n in range(3000)]
    path = write_rows(tmp_path / "rows.jsonl", bad)
    with pytest.raises(PipeError, match=r"None of the first 1024 rows of .* no_reasoning 1024"):
        prepared(tmp_path / "run", recipe_of(base, path))


def test_a_classification_dataset_works_through_its_columns(base, tmp_path):
    rows = [{"text": f"Film {n} was fine.", "label": n % 2, "extra": None} for n in range(20)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    columns = {
        "question": "text",
        "answer": "label",
        "labels": ["negative", "positive"],
        "prompt": "Is this review positive or negative?\n\n{question}",
    }
    recipe = recipe_of(base, {"dataset": str(path), "columns": columns}, **ALL)
    run = prepared(tmp_path / "run", recipe)
    row = rows_of(run, "train")[3]
    assert row["question"] == "Is this review positive or negative?\n\nFilm 3 was fine."
    assert (row["reasoning"], row["answer"], row["thinking"]) == (None, "positive", False)
    encoder = Encoder(base / "tokenizer.json", chat_format("llama3.2-reasoning"))
    example = examples(run, "train")[3]
    learned = encoder.text_of(example["input_ids"][example["target_start"] :])
    assert learned == "positive<|eot_id|>"


def test_columns_that_were_found_must_be_confirmed(base, tmp_path):
    rows = [
        {"query": f"What is {n} + 1?", "cot": f"{n} and 1.", "response": f"It is {n + 1}."}
        for n in range(20)
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    recipe = recipe_of(base, path, **ALL)
    with pytest.raises(PipeError, match="20 of 20 rows read well") as error:
        prepared(tmp_path / "run", recipe)
    assert "pipe prepare --yes" in error.value.hint
    events = []
    run = prepared(tmp_path / "run", recipe, events.append, accept=True)
    assert any("columns taken as found" in e.text for e in events if isinstance(e, Note))
    manifest = json.loads((run.folder("data") / "manifest.json").read_text())
    fact = manifest["facts"]["sources"][0]
    assert fact["columns_from"] == "detected"
    assert fact["columns"] == {"question": "query", "reasoning": "cot", "answer": "response"}
    assert fact["rows"] == 20


def test_what_is_expected_of_local_and_unreachable_sources(base, tmp_path, monkeypatch):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(150)])
    recipe = recipe_of(base, {"dataset": str(path), "limit": 120})
    encoder = Encoder(base / "tokenizer.json", chat_format("llama3.2-reasoning"))
    found, general = expected(recipe, encoder, accept=False)
    assert (general.rows, general.problem) == (2, None)
    assert (found.rows, found.columns, found.problem) == (120, "known columns", None)
    run = prepared(tmp_path / "run", recipe_of(base, path, **ALL))
    mean = stats_of(run)["tokens"]["train"]["sum"] / 150
    assert found.tokens == pytest.approx(120 * mean, rel=0.05)


def test_rows_are_shown_as_the_model_sees_them(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(10)])
    run = prepared(tmp_path / "run", recipe_of(base, path, **ALL))
    encoder = Encoder(base / "tokenizer.json", chat_format("llama3.2-reasoning"))
    first, second = shown(run, encoder, 2)
    assert first.prompt == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhat is 0 + 1?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert first.target == "<think>\n0 and 1 is 1.\n</think>\n\nIt is 1.<|eot_id|>"
    assert second.id == "r1"
    assert first.tokens == len(examples(run, "train")[0]["input_ids"])
