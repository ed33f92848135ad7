"""General rows held apart, to see what training forgets: which, how written, to what they yield."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.assets import asset
from pipeline.chat import Encoder, chat_format
from pipeline.data.choose.general import APART
from pipeline.data.inputs import SHIPPED
from pipeline.recipe import load
from pipeline.run import Note, describe
from pipeline.run.rows import read_jsonl
from tests.data.general_rows import general, ids, manifest_of, mixed_in, plain
from tests.data.support import (
    ALL,
    contents,
    examples,
    general_record,
    prepared,
    recipe_of,
    record,
    rows_of,
    stats_of,
    write_rows,
)


def test_rows_held_apart_are_encoded_as_the_base_answers_them(base, tmp_path, own):
    rows = [general_record(1, system="Be brief."), general_record(2, answer="Blue, then red.")]
    run = prepared(tmp_path / "run", recipe_of(base, own, general=general(tmp_path, *rows)))
    encoder = Encoder(base / "tokenizer.json", chat_format("llama3.2-reasoning"))
    texts = [encoder.text_of(example["input_ids"]) for example in examples(run, "general")]
    header = "<|start_header_id|>{}<|end_header_id|>\n\n{}"
    asked = "Name thing {}, colour {}, please.<|eot_id|>"
    assert texts == [
        "<|begin_of_text|>"
        + header.format("system", "Be brief.<|eot_id|>")
        + header.format("user", asked.format(1, 7))
        + header.format("assistant", "Thing 1.<|eot_id|>"),
        "<|begin_of_text|>"
        + header.format("user", asked.format(2, 14))
        + header.format("assistant", "Blue, then red.<|eot_id|>"),
    ]
    for example, row in zip(examples(run, "general"), rows_of(run, "general"), strict=True):
        reply = encoder.content_ids(row["answer"])
        # all but its first token
        assert example["input_ids"][example["target_start"] :] == [
            *reply[1:],
            encoder.end_of_turn_id,
        ]


def test_an_answer_of_one_token_is_measured_by_its_end(base, tmp_path, own):
    source = general(tmp_path, general_record(1, answer="4"))
    run = prepared(tmp_path / "run", recipe_of(base, own, general=source))
    (example,) = examples(run, "general")
    assert len(example["input_ids"]) - example["target_start"] == 1


def test_at_most_64_are_held_apart_and_the_rest_is_left_out_unless_a_share_is_asked(
    base, tmp_path, own
):
    source = general(tmp_path, *plain(100))
    run = prepared(tmp_path / "run", recipe_of(base, own, general=source, **ALL))
    assert len(ids(run, "general")) == len(examples(run, "general")) == APART == 64
    assert mixed_in(run) == []
    found = manifest_of(run)
    assert found["counts"]["general"] == 64
    assert found["facts"]["general"]["trained"] == 0
    assert [each["dataset"] for each in found["facts"]["sources"]] == [str(own)]
    figures = stats_of(run)["sources"][-1]
    assert (figures["records"], figures["rows"], figures["left_out"]) == (100, 64, 36)


def test_the_training_and_eval_rows_do_not_depend_on_the_general_rows(base, tmp_path):
    long = "On a shelf in the shop stand {n} red jars, {m} blue jars and a box with a lid of tin."
    rows = [record(n, problem=long.format(n=n, m=3 * n)) for n in range(60)]
    own = write_rows(tmp_path / "own.jsonl", rows)
    alike = [general_record(n, question=long.format(n=n, m=3 * n)) for n in range(20, 90)]
    made = []
    for name, given_rows in (("alike", alike), ("other", plain(3))):
        source = general(tmp_path, *given_rows, max_loss=1)
        recipe = recipe_of(base, own, general=source, eval_share=0.2, test_share=0.2)
        run = prepared(tmp_path / name, recipe)
        files = ("train.jsonl", "eval.jsonl", "encoded/train.arrow", "encoded/eval.arrow")
        made.append({each: contents(run)[f"data/{each}"] for each in files})
    assert made[0] == made[1]


@pytest.mark.parametrize("questions", ["near", "exact", "keep"])
def test_a_general_row_gives_way_to_every_other_row_that_asks_the_same(base, tmp_path, questions):
    own = write_rows(tmp_path / "own.jsonl", [record(n) for n in range(20)])
    test = write_rows(tmp_path / "test.jsonl", [record(n) for n in range(100, 103)])
    same = [general_record(n, question=f"What is {n} + 1?") for n in (3, 4, 101)]
    recipe = recipe_of(
        base,
        own,
        test={"dataset": str(test)},
        general=general(tmp_path, *same, *plain(5)),
        dedupe={"questions": questions},
        **ALL,
    )
    run = prepared(tmp_path / "run", recipe)
    assert len(rows_of(run, "train")) == 20
    assert len(rows_of(run, "test")) == 3
    assert ids(run, "general") == [f"g{n}" for n in range(5)]
    rejects = rows_of(run, "rejects")
    assert [(row["id"], row["reason"]) for row in rejects] == [
        (f"g{n}", "contaminated") for n in (3, 4, 101)
    ]


def test_a_general_row_with_a_benchmark_question_is_dropped(base, tmp_path, own):
    bench = write_rows(tmp_path / "bench.jsonl", [{"question": "Name thing 2, colour 14, please."}])
    recipe = recipe_of(
        base,
        own,
        general=general(tmp_path, *plain(5)),
        decontaminate=[{"dataset": str(bench)}],
        **ALL,
    )
    run = prepared(tmp_path / "run", recipe)
    assert ids(run, "general") == ["g0", "g1", "g3", "g4"]
    assert [row["reason"] for row in rows_of(run, "rejects")] == ["contaminated"]


def test_filters_of_the_reasoning_rows_do_not_touch_general_rows(base, tmp_path):
    trace = "the sum of the two numbers is the one that follows the first of them in order"
    reply = f"<think>\n{trace}\n</think>\n\nThe answer to the question is the next number."
    rows = [
        record(n, problem=f"What is the number after {n}?", reannotated_assistant_content=reply)
        for n in range(20)
    ]
    own = write_rows(tmp_path / "own.jsonl", rows)
    german = general_record(1, question="Wie heißt die Hauptstadt von Österreich, bitte?")
    filters = {"languages": ["en"], "min_reasoning_words": 3, "verify": False}
    source = general(tmp_path, german)
    recipe = recipe_of(base, own, general=source, filters=filters, dedupe={"questions": "exact"})
    assert ids(prepared(tmp_path / "run", recipe), "general") == ["g1"]


def test_the_shipped_rows_are_whole_and_all_held_apart(base, tmp_path, own):
    rows = list(read_jsonl(asset(f"data/{SHIPPED.removeprefix('builtin:')}")))
    assert len(rows) == len({row["id"] for row in rows}) == len({r["question"] for r in rows})
    assert all(row["reasoning"] is None and row["answer"].strip() for row in rows)
    recipe = recipe_of(base, own, general=None, max_seq_length=4096, **ALL)
    run = prepared(tmp_path / "run", recipe)
    assert ids(run, "general") == [row["id"] for row in rows]
    assert len(rows) == APART
    assert rows_of(run, "rejects") == []


def test_shipped_rows_that_do_not_fit_stop_nothing_and_are_missed_aloud(base, tmp_path):
    own = write_rows(tmp_path / "own.jsonl", [{"question": "1?", "answer": "2"}])
    columns = {"question": "question", "answer": "answer"}
    events = []
    recipe = recipe_of(
        base, {"dataset": str(own), "columns": columns}, general=None, max_seq_length=40, **ALL
    )
    run = prepared(tmp_path / "run", recipe, events.append)
    assert len(rows_of(run, "train")) == 1
    text = "no general row is left to see by what training forgets: name other data.general"
    assert Note(text, warning=True) in events


def test_the_demo_measures_by_rows_of_its_own_base(tmp_path):
    """Make them anew: python scripts/make_general.py"""
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "scripts" / "make_general.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    named = load("demo").recipe.data.general
    assert named is not None
    shipped = asset(f"data/{named.dataset.removeprefix('builtin:')}")
    assert describe(tmp_path / shipped.name) == describe(shipped)


def test_general_rows_take_no_weight(base, tmp_path, own):
    with pytest.raises(ValidationError, match="general takes no weight"):
        recipe_of(base, own, general={"dataset": "x.jsonl", "weight": 1})


def test_a_run_from_before_there_were_general_rows_is_prepared_anew(base, tmp_path, own):
    recipe = recipe_of(base, own, **ALL)
    run = prepared(tmp_path / "run", recipe)
    path = run.folder("data") / "manifest.json"
    old = json.loads(path.read_text())
    del old["facts"]["general"], old["section"]["data"]["general"]
    path.write_text(json.dumps(old))
    prepared(tmp_path / "run", recipe)
    assert manifest_of(run)["counts"]["general"] == 2
