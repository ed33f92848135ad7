"""The best row by the rule, in a sentence and in a table."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ChangedInput
from pipeline.run import Run
from pipeline.study.quant.results import KEPT, as_csv, best, in_words, last
from tests.study.quant.support import METHODS, refused, results, row

NONE = row("none", 1000, 1.0, (0.80, 0.70, 0.90))
scores = st.floats(0, 1).map(lambda value: (value, value, value))
others = st.lists(
    st.tuples(st.integers(1, 2000), st.floats(0, 1), scores), max_size=len(METHODS) - 1
)


def test_the_smallest_row_that_keeps_score_and_first_choice_is_the_best() -> None:
    good, small = row("nf4", 300, 0.96, (0.76, 0.6, 0.8)), row("Q8_0", 500, 0.99, (0.9, 0.8, 1))
    worse = row("fp4", 200, 0.97, (0.75, 0.6, 0.8))
    other = row("Q2_K", 100, 0.94, (0.80, 0.7, 0.9))
    assert best([NONE, good, worse, other, small], "higher") == "nf4"
    assert best([NONE, worse, other], "higher") == "none"


def test_where_less_is_better_a_score_may_not_be_much_more() -> None:
    whole = row("none", 1000, 1.0, (10.0, 8.0, 12.0))
    rows = [whole, row("nf4", 300, 0.99, (10.6, 9, 15)), row("Q8_0", 500, 0.99, (10.5, 9, 13))]
    assert best(rows, "lower") == "Q8_0"


def test_without_a_score_the_first_choice_decides() -> None:
    rows = [row("none", 1000, 1.0, None), row("nf4", 300, 0.96, None)]
    assert best(rows, "higher") == "nf4"


def test_a_row_that_was_not_run_is_never_the_best() -> None:
    assert best([NONE, refused("gptq", "No module")], "higher") == "none"
    assert best([refused("gptq", "No module")], "higher") is None


@given(others)
def test_the_best_keeps_the_rule_and_no_smaller_row_does(found: list) -> None:
    names = [name for name in METHODS if name != "none"]
    rows = [NONE, *(row(name, *each) for name, each in zip(names, found, strict=False))]
    chosen = {each["method"]: each for each in rows}[best(rows, "higher")]
    keeps = [
        each
        for each in rows
        if each is NONE or (each["kl"]["same_top"] >= KEPT and each["score"]["value"] >= 0.76)
    ]
    assert chosen in keeps
    assert all(chosen["weights_bytes"] <= each["weights_bytes"] for each in keeps)


def test_the_sentence_says_what_is_saved_and_what_is_kept() -> None:
    found = results([NONE, row("nf4", 300, 0.96, (0.75, 0.6, 0.8))], best="nf4")
    assert in_words(found) == (
        "NF4 is the best choice: 30% of the bytes of 16 bits, the same likeliest token 96.0% of "
        "the time, exact match 75.0% against 80.0%."
    )
    assert "stay at 16 bits" in in_words(results([NONE], best="none"))


def test_the_csv_has_a_line_a_row_and_keeps_the_words_of_a_refusal() -> None:
    rows = [NONE, row("nf4", 300, 0.96, (0.75, 0.6, 0.8)), refused("gptq", 'said "no", twice')]
    lines = list(csv.DictReader(io.StringIO(as_csv(results(rows)))))
    assert [line["method"] for line in lines] == ["none", "nf4", "gptq"]
    assert lines[1]["kl_same_top"] == "0.96" and lines[1]["score_low"] == "0.6"
    assert lines[2]["reason"] == 'said "no", twice' and lines[2]["weights_bytes"] == ""


def test_the_last_study_is_read_back_and_a_foreign_file_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert last(run) is None
    (tmp_path / "quant").mkdir()
    path = tmp_path / "quant" / "results.json"
    path.write_text(json.dumps(results([NONE])))
    found = last(run)
    assert found and found["rows"] == [NONE]
    path.write_text(json.dumps(results([NONE], schema=1)))
    with pytest.raises(ChangedInput, match="schema 1; this pipe writes 2") as caught:
        last(run)
    assert caught.value.hint == "Run: pipe quant"  # its rows are kept: none is measured again
    path.write_text('{"schema": 9}')
    with pytest.raises(ChangedInput, match="schema 9"):
        last(run)
    path.write_text("[")
    with pytest.raises(ChangedInput, match="cannot be read"):
        last(run)
