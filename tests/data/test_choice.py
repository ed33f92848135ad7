"""Rows held against one another: duplicates, the run's own test questions, benchmarks."""

import json

import pytest

from pipeline.errors import PipeError
from pipeline.run import Note
from tests.data.support import (
    ALL,
    prepared,
    reasons,
    recipe_of,
    record,
    rows_of,
    stats_of,
    write_rows,
)

LONG = (
    "A farmer keeps {n} hens in a yard behind the old mill and sells the eggs of every second hen "
    "at the market in town on Saturday morning for {m} cents each; how much does he earn?"
)


def long(number, **changes):
    return record(number, problem=LONG.format(n=number, m=7 * number + 3), **changes)


def test_equal_rows_equal_questions_and_nearly_equal_questions_are_dropped(base, tmp_path):
    other = "<think>\nAnother way.\n</think>\n\nIt is 2."
    altered = LONG.format(n=1, m=10).replace("hens in a yard", "hens in one yard")
    path = write_rows(
        tmp_path / "rows.jsonl",
        [
            long(1),
            long(1),
            long(1, reannotated_assistant_content=other),
            record(5, problem=altered),
            *[record(n) for n in range(20, 40)],
        ],
    )
    near = {"similarity": 0.7}
    run = prepared(tmp_path / "run", recipe_of(base, path, dedupe=near, **ALL))
    assert reasons(run) == {"duplicate_row": 1, "duplicate_question": 1, "near_duplicate": 1}
    exact = {"questions": "exact"}
    run = prepared(tmp_path / "exact", recipe_of(base, path, dedupe=exact, **ALL))
    assert reasons(run) == {"duplicate_row": 1, "duplicate_question": 1}
    keep = {"questions": "keep"}
    run = prepared(tmp_path / "keep", recipe_of(base, path, dedupe=keep, **ALL))
    assert reasons(run) == {"duplicate_row": 1}
    assert rows_of(run, "rejects")[0]["where"] == "line 2"


def test_training_rows_with_a_question_of_the_test_file_are_dropped(base, tmp_path):
    train = write_rows(tmp_path / "train.jsonl", [long(n) for n in range(5)] + [record(9)])
    near = LONG.format(n=3, m=24).replace("hens in a yard", "hens in one yard")
    test = write_rows(tmp_path / "test.jsonl", [long(1), long(1), record(7, problem=near)])
    recipe = recipe_of(base, train, test={"dataset": str(test)}, dedupe={"similarity": 0.7}, **ALL)
    run = prepared(tmp_path / "run", recipe)
    assert reasons(run)["contaminated"] >= 2
    assert len(rows_of(run, "test")) == 3
    assert "line 2" in [row["where"] for row in rows_of(run, "rejects")]


def test_a_test_question_with_many_replies_is_still_kept_out(base, tmp_path):
    replies = [f"<think>\nWay {n}.\n</think>\n\nIt is 2." for n in range(12)]
    test = write_rows(
        tmp_path / "test.jsonl", [long(1, reannotated_assistant_content=r) for r in replies]
    )
    longer = record(2, problem=LONG.format(n=1, m=10) + " Answer soon.")
    train = write_rows(tmp_path / "train.jsonl", [longer, *[record(n) for n in range(20, 30)]])
    recipe = recipe_of(
        base, train, test={"dataset": str(test)}, dedupe={"questions": "keep"}, **ALL
    )
    run = prepared(tmp_path / "run", recipe)
    (reject,) = rows_of(run, "rejects")
    assert (reject["reason"], reject["where"]) == ("contaminated", "line 1")
    assert len(rows_of(run, "test")) == 12


def test_one_file_for_training_and_test_is_told_apart(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(200)])
    recipe = recipe_of(
        base, {"dataset": str(path), "limit": 200}, test={"dataset": str(path), "limit": 100}, **ALL
    )
    run = prepared(tmp_path / "run", recipe)
    facts = json.loads((run.folder("data") / "manifest.json").read_text())["facts"]
    assert [fact["rows"] for fact in (*facts["sources"], facts["test"])] == [100, 100]
    events = []
    prepared(tmp_path / "run", recipe, events.append)
    assert events == [Note("data is up to date")]


def test_a_prompt_around_all_questions_makes_none_alike(base, tmp_path):
    prompt = "Read the following text with care and say what it is about, please: {question}"
    columns = {"question": "q", "answer": "a", "prompt": prompt}
    rows = [{"q": f"Text {n}", "a": "b"} for n in range(30)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    recipe = recipe_of(base, {"dataset": str(path), "columns": columns}, **ALL)
    assert reasons(prepared(tmp_path / "run", recipe)) == {}


def test_training_rows_that_share_eight_words_with_a_benchmark_are_dropped(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [long(4), *[record(n) for n in range(30)]])
    benchmark = tmp_path / "bench.jsonl"
    asked = "Somewhere he sells the eggs of every second hen at the market, or not?"
    benchmark.write_text(json.dumps({"problem": asked}) + "\n")
    recipe = recipe_of(base, path, decontaminate=[{"dataset": str(benchmark)}], **ALL)
    run = prepared(tmp_path / "run", recipe)
    (reject,) = rows_of(run, "rejects")
    assert (reject["reason"], reject["where"]) == ("contaminated", "line 1")
    figures = stats_of(run)["decontamination"]
    assert (figures["benchmark_questions"], figures["by_benchmarks"]) == (1, 1)
    assert (
        "benchmark-0/bench.jsonl"
        in json.loads((run.folder("data") / "manifest.json").read_text())["inputs"]
    )


def test_a_benchmark_without_a_question_is_named(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(1)])
    benchmark = tmp_path / "bench.jsonl"
    benchmark.write_text('{"text": "a"}\n')
    recipe = recipe_of(base, path, decontaminate=[{"dataset": str(benchmark)}])
    with pytest.raises(PipeError, match="line 1: no question in a column question or problem"):
        prepared(tmp_path / "run", recipe)
