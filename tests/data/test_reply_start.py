"""Rows whose answers begin with given text, rounded numbers, and questions cut to a budget."""

import json

import pytest

from pipeline.chat import Encoder, chat_format
from pipeline.data.read.rows import Reject, Row, to_row
from pipeline.errors import PipeError
from pipeline.recipe import Columns, load
from pipeline.run import Note
from tests.data.support import (
    examples,
    prepared,
    recipe_of,
    rows_of,
    stats_of,
    write_rows,
)

PRICE = {
    "id": "id",
    "question": "text",
    "prompt": "What does it cost?\n\n{question}\n\nIn dollars.",
    "answer": "price",
    "round_answer": True,
    "reply_start": "Price is $",
}


def product(number, words=6, price=None):
    text = " ".join(f"w{number}x{place}" for place in range(words))
    return {"id": f"p{number}", "text": text, "price": number + 0.5 if price is None else price}


def price_run(base, tmp_path, records, emit=None, **data):
    path = write_rows(tmp_path / "rows.jsonl", records)
    test = write_rows(tmp_path / "test.jsonl", [product(900 + n, 60) for n in range(4)])
    recipe = recipe_of(
        base,
        {"dataset": str(path), "columns": PRICE, "max_loss": 1.0},
        test={"dataset": str(test), "columns": PRICE},
        eval_share=0.0,
        max_seq_length=1024,
        **{"dedupe": {"questions": "keep"}, **data},
    )
    return prepared(tmp_path / "run", recipe, emit or (lambda event: None))


def test_a_price_row_keeps_its_start_and_its_whole_number(base, tmp_path):
    run = price_run(base, tmp_path, [product(n) for n in range(1, 20)])
    rows = {row["id"]: row for row in rows_of(run, "train")}
    assert rows["p7"]["reply_start"] == "Price is $"
    assert rows["p7"]["answer"] == "8"
    assert rows["p7"]["reasoning"] is None
    assert {row["reply_start"] for row in rows_of(run, "test")} == {"Price is $"}
    encoder = Encoder(base / "tokenizer.json", chat_format("llama3.2-reasoning"))
    for each in examples(run, "train"):
        ids, start = each["input_ids"], each["target_start"]
        assert encoder.text_of(ids[:start]).endswith("<|end_header_id|>\n\nPrice is $")
        assert encoder.text_of(ids[start:]).removesuffix("<|eot_id|>").isdecimal()


def test_rows_without_a_start_are_written_as_ever(base, tmp_path):
    run = price_run(base, tmp_path, [product(n) for n in range(5)])
    assert all("reply_start" not in row for row in rows_of(run, "general"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (12.5, "13"),
        (12.49, "12"),
        (0.4, "0"),
        (-0.4, "0"),
        (7, "7"),
        ("$1,234.50", "1235"),
        ("3 dollars", "3"),
        ("$.99", "1"),
    ],
)
def test_a_number_is_rounded_halves_up(value, said):
    row = to_row(Columns(**PRICE), product(1, price=value), "row 1", "products")
    assert isinstance(row, Row) and row.answer == said


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("cheap", "no_number"),
        ("3 or 4", "several_numbers"),
        (None, "not_text"),
        ("", "empty_answer"),
    ],
)
def test_an_answer_that_is_not_one_number_is_a_reject(value, reason):
    record = product(1) | {"price": value}
    row = to_row(Columns(**PRICE), record, "row 1", "products")
    assert isinstance(row, Reject) and row.reason == reason


def test_a_long_question_is_cut_in_training_and_in_test_alike_and_counted(base, tmp_path):
    records = [product(n, words=60 if n % 4 == 0 else 3) for n in range(20)]
    notes = []
    run = price_run(base, tmp_path, records, notes.append, filters={"question_tokens": 24})
    encoder = Encoder(base / "tokenizer.json", chat_format("llama3.2-reasoning"))
    texts = {row["id"]: row["question"] for row in rows_of(run, "train") + rows_of(run, "test")}
    assert len(texts) == 24
    for name, question in texts.items():
        assert question.startswith("What does it cost?\n\n")
        assert question.endswith("\n\nIn dollars.")
        own = question.removeprefix("What does it cost?\n\n").removesuffix("\n\nIn dollars.")
        assert len(encoder.content_ids(own)) <= 24
        whole = product(int(name[1:]), 60 if name > "p9" or int(name[1:]) % 4 == 0 else 3)["text"]
        assert whole.startswith(own)
    sources = {each["dataset"].rpartition("/")[2]: each for each in stats_of(run)["sources"]}
    assert sources["rows.jsonl"]["cut"] == 5
    assert sources["test.jsonl"]["cut"] == 4
    said = [event.text for event in notes if isinstance(event, Note) and "cut" in event.text]
    assert [text.rpartition("/")[2] for text in said] == [
        "rows.jsonl: 5 of 20 rows are cut to fit.",
        "test.jsonl: 4 of 4 rows are cut to fit.",
    ]


def test_a_question_within_the_budget_stays_as_it_is(base, tmp_path):
    run = price_run(base, tmp_path, [product(1, 5)], filters={"question_tokens": 500})
    (row,) = rows_of(run, "train")
    assert product(1, 5)["text"] in row["question"]
    assert stats_of(run)["sources"][0]["cut"] == 0


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"reply_start": "Price is $ "}, "may not begin or end with a space"),
        ({"reply_start": ""}, "at least 1 character"),
        ({"reasoning": "why"}, "need `answer`, without `reasoning`"),
        ({"answer": None, "reply": "price"}, "need `answer`, without `reasoning`"),
    ],
)
def test_what_a_start_cannot_be_is_refused_with_the_recipe(columns, words):
    source = json.dumps({"dataset": "x.jsonl", "columns": {**PRICE, **columns}})
    with pytest.raises(PipeError, match=words):
        load("demo", [f"data.sources=[{source}]"])


def test_general_rows_take_no_start():
    source = json.dumps({"dataset": "x.jsonl", "columns": PRICE})
    with pytest.raises(PipeError, match="takes no reply_start"):
        load("demo", [f"data.general={source}"])


def test_a_dropped_row_with_a_start_is_a_whole_reject(base, tmp_path):
    twice = [product(1), product(1, price=9) | {"id": "again"}, product(2)]
    run = price_run(base, tmp_path, twice, dedupe={"questions": "exact"})
    (reject,) = rows_of(run, "rejects")
    assert (reject["id"], reject["reason"]) == ("again", "duplicate_question")
    assert reject["reply_start"] == "Price is $"
