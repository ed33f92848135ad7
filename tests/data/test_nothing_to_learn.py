"""Rows with nothing to learn: rejected and counted by whatever path they come, never trained."""

import json

import pytest

from pipeline.errors import PipeError
from tests.data.support import (
    ALL,
    examples,
    general_record,
    prepared,
    reasons,
    recipe_of,
    record,
    rows_of,
    stats_of,
    write_rows,
)

UNSEEN = "\u200b"
"""White space to nobody but the tokenizer below, which drops it."""

WHOLE = {
    "direct": ({"question": "q", "answer": "a"}, lambda q, a: {"q": q, "a": a}),
    "chat": (
        {"messages": "m", "answer": "m"},
        lambda q, a: {
            "m": [{"role": "user", "content": q}, {"role": "assistant", "content": a}],
        },
    ),
    "label": (
        {"question": "q", "answer": "a", "labels": ["yes", ""]},
        lambda q, a: {"q": q, "a": int(not a.strip(f"{UNSEEN} \n"))},
    ),
    "apart": (
        {"question": "q", "answer": "a", "reasoning": "r"},
        lambda q, a: {"q": q, "a": a, "r": "Hm."},
    ),
    "inline": ({"question": "q", "reply": "a"}, lambda q, a: {"q": q, "a": f"<think>h</think>{a}"}),
    "candidates": (
        {"question": "q", "candidates": "a"},
        lambda q, a: {"q": q, "a": [f"<think>h</think>{a}"]},
    ),
}


@pytest.fixture
def dropping(base):
    """A base whose tokenizer drops a character: a text of it alone has no token."""
    path = base / "tokenizer.json"
    values = json.loads(path.read_text())
    values["normalizer"] = {"type": "Replace", "pattern": {"String": UNSEEN}, "content": ""}
    path.write_text(json.dumps(values))
    return base


def source(tmp_path, form, answers, **more):
    columns, make = WHOLE[form]
    rows = [make(f"Is it {n}?", answer) for n, answer in enumerate(answers)]
    if form == "label":
        columns = columns | {"labels": ["yes", answers[0]]}
    path = write_rows(tmp_path / "rows.jsonl", rows)
    return {"dataset": str(path), "columns": columns, **more}


def rejected(run):
    found = reasons(run)
    assert stats_of(run)["rejects"] == found
    return found


@pytest.mark.parametrize("form", WHOLE)
def test_an_empty_answer_is_rejected(base, tmp_path, form):
    given = source(tmp_path, form, [" \n", *["yes"] * 5])
    run = prepared(tmp_path / "run", recipe_of(base, given, **ALL))
    assert rejected(run) == {"empty_answer": 1}
    assert len(examples(run, "train")) == 5


@pytest.mark.parametrize("form", ["direct", "chat", "label"])
def test_an_answer_without_a_token_is_rejected(dropping, tmp_path, form):
    given = source(tmp_path, form, [UNSEEN, *["yes"] * 5])
    run = prepared(tmp_path / "run", recipe_of(dropping, given, **ALL))
    assert rejected(run) == {"nothing_to_learn": 1}
    assert rows_of(run, "rejects")[0]["where"] == "line 1"
    assert all(len(each["input_ids"]) - each["target_start"] > 1 for each in examples(run, "train"))


@pytest.mark.parametrize("form", ["apart", "inline", "candidates"])
def test_without_its_thinking_such_a_row_has_nothing_left(dropping, tmp_path, form):
    given = source(tmp_path, form, [UNSEEN, *["yes"] * 5])
    thinking = prepared(tmp_path / "thinking", recipe_of(dropping, given, **ALL))
    assert rejected(thinking) == {}
    asked = ALL | {"no_thinking_share": 0.999999}
    assert rejected(prepared(tmp_path / "run", recipe_of(dropping, given, **asked))) == {
        "nothing_to_learn": 1
    }


@pytest.mark.parametrize("over_long", ["drop", "truncate"])
def test_a_row_that_would_be_cut_to_nothing_is_too_long(base, tmp_path, over_long):
    hopeless = record(1, problem="long " * 300)
    unthinking = {"id": "x", "question": "Why?", "reasoning": None, "answer": "long " * 300}
    path = write_rows(tmp_path / "rows.jsonl", [hopeless, *[record(n) for n in range(10, 20)]])
    direct = write_rows(tmp_path / "direct.jsonl", [unthinking, general_record(9)])
    recipe = recipe_of(base, path, direct, filters={"over_long": over_long}, **ALL)
    run = prepared(tmp_path / "run", recipe)
    assert rejected(run) == {"too_long": 2}


def test_a_general_row_with_nothing_to_learn_is_rejected(dropping, tmp_path):
    own = write_rows(tmp_path / "own.jsonl", [record(n) for n in range(5)])
    few = [general_record(1, answer=UNSEEN), general_record(2), general_record(3)]
    given = {"dataset": str(write_rows(tmp_path / "general.jsonl", few))}
    run = prepared(tmp_path / "run", recipe_of(dropping, own, general=given, **ALL))
    assert rejected(run) == {"nothing_to_learn": 1}
    assert len(examples(run, "general")) == 2


@pytest.mark.parametrize("form", ["direct", "chat", "label"])
def test_nothing_but_such_rows_is_an_error_before_training(dropping, tmp_path, form):
    given = source(tmp_path, form, [UNSEEN] * 4)
    with pytest.raises(PipeError) as error:
        prepared(tmp_path / "run", recipe_of(dropping, given, **ALL))
    assert f"4 of 4 rows of {given['dataset']} are rejected: nothing_to_learn 4" in str(error.value)
    with pytest.raises(PipeError) as error:
        prepared(tmp_path / "run", recipe_of(dropping, given | {"max_loss": 1}, **ALL))
    assert error.value.message == (
        "No training row is left (train 0, eval 0, test 0, general 2, rejects 4). "
        "Rejected: nothing_to_learn 4."
    )
    assert not (tmp_path / "run" / "data").exists()


def test_general_rows_alone_are_no_training(dropping, tmp_path):
    given = source(tmp_path, "direct", [UNSEEN] * 4, max_loss=1)
    rows = [general_record(n) for n in range(100)]
    general = {"dataset": str(write_rows(tmp_path / "general.jsonl", rows))}
    recipe = recipe_of(dropping, given, general=general, general_share=0.5, **ALL)
    with pytest.raises(PipeError, match="No training row is left"):
        prepared(tmp_path / "run", recipe)
