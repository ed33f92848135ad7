"""What is malformed becomes a reject with its reason and place, or stops with them."""

import json
from collections import Counter

import pytest

from pipeline.chat import Encoder
from pipeline.data import prepare
from pipeline.errors import PipeError
from pipeline.run import Run, silent
from pipeline.run.rows import read_jsonl
from tests.data.support import recipe_of, record, write_rows


def test_bad_rows_become_rejects_with_reason_and_place(base, tmp_path):
    bad = [
        b"{not json",
        b'["a list"]',
        b"[" * 100_000,
        b'{"id": "\xff"}',
        {"id": "stray"},
        record(1, problem=None),
        record(2, problem="\ud800"),
        record(3, problem="a\0b"),
        record(4, reannotated_assistant_content="<think>\nopen"),
        record(5, problem="long " * 300),
        b"",
    ]
    good = [record(n) for n in range(10, 40)]
    path = write_rows(tmp_path / "rows.jsonl", bad + good)
    run = Run(tmp_path / "run")
    manifest = prepare(recipe_of(base, path), run, silent)
    rejects = list(read_jsonl(run.folder("data") / "rejects.jsonl"))
    assert [(r["where"], r["reason"]) for r in rejects] == [
        ("line 1", "malformed_record"),
        ("line 2", "malformed_record"),
        ("line 3", "malformed_record"),
        ("line 4", "bad_encoding"),
        ("line 5", "missing_column"),
        ("line 6", "not_text"),
        ("line 7", "bad_encoding"),
        ("line 8", "bad_encoding"),
        ("line 9", "unclosed_block"),
        ("line 10", "too_long"),
    ]
    assert rejects[0]["excerpt"] == "{not json"
    assert rejects[9]["id"] == "r5"
    assert manifest.counts["rejects"] == 10
    stats = json.loads((run.folder("data") / "stats.json").read_text())
    assert stats["rejects"] == dict(Counter(r["reason"] for r in rejects))


def test_a_row_of_ten_megabytes_is_too_long(base, tmp_path):
    huge = record(0, problem="What is " + "x" * 10_000_000)
    path = write_rows(tmp_path / "rows.jsonl", [huge, *[record(n) for n in range(1, 20)]])
    run = Run(tmp_path / "run")
    prepare(recipe_of(base, path), run, silent)
    (reject,) = read_jsonl(run.folder("data") / "rejects.jsonl")
    assert (reject["reason"], len(reject["question"])) == ("too_long", 301)


def test_a_reply_that_joins_the_prompt_is_rejected(base, tmp_path, monkeypatch):
    monkeypatch.setattr(Encoder, "examples", lambda _, rows: [None for _ in rows])
    path = write_rows(tmp_path / "rows.jsonl", [record(1)])
    with pytest.raises(PipeError) as error:
        prepare(recipe_of(base, path), Run(tmp_path / "run"), silent)
    assert error.value.message == (
        f"1 of 1 rows of {path} are rejected: prompt_boundary 1 (first: line 1)."
    )


def test_mostly_rejected_is_an_error_with_reasons(base, tmp_path):
    bad = [record(n, reannotated_assistant_content="It is.") for n in range(3)]
    long = [record(n, problem="long " * 300) for n in range(3, 5)]
    path = write_rows(tmp_path / "rows.jsonl", [record(9), *bad, *long])
    run = Run(tmp_path / "run")
    with pytest.raises(PipeError) as error:
        prepare(recipe_of(base, path), run, silent)
    assert error.value.message == (
        f"5 of 6 rows of {path} are rejected: "
        "no_reasoning 3 (first: line 2), too_long 2 (first: line 5)."
    )
    assert not run.folder("data").exists()


BAD_REPLIES = {
    "no_reasoning": "It is 2.",
    "unclosed_block": "<think>\nhm. It is 2.",
    "unopened_block": "hm.\n</think>\n\nIt is 2.",
    "several_blocks": "<think>\na <think>b</think>\n</think>\n\nIt is 2.",
    "empty_reasoning": "<think>\n \n</think>\n\nIt is 2.",
    "empty_answer": "<think>\nhm\n</think>\n\n",
    "text_before_reasoning": "Well. <think>\nhm\n</think>\n\nIt is 2.",
}
BAD_RECORDS = {
    "missing_column": {"id": "a", "problem": "Why?"},
    "malformed_record": b'{"id": NaN,,}',
    "bad_encoding": {"problem": "a\0b"},
    "not_text": {"problem": float("nan")},
    "empty_question": {"problem": " \n"},
    "too_long": {"problem": "word " * 1_000_000},
}


def test_every_malformed_row_is_a_counted_reject_with_its_place(base, tmp_path):
    replies = [
        (reason, record(n, reannotated_assistant_content=reply))
        for n, (reason, reply) in enumerate(BAD_REPLIES.items())
    ]
    whole = {"malformed_record", "missing_column"}
    records = [
        (reason, given if reason in whole else record(50, **given))
        for reason, given in BAD_RECORDS.items()
    ]
    types = [("not_text", record(60, problem=value)) for value in (None, 3, True, [], {}, ["a"])]
    surrogates = [("bad_encoding", record(70, problem="\ud800")), ("bad_encoding", b'"\xff"')]
    bad = [*replies, *records, *types, *surrogates]
    good = [record(n) for n in range(100, 130)]
    path = write_rows(tmp_path / "rows.jsonl", [*[given for _, given in bad], *good])
    run = Run(tmp_path / "run")
    recipe = recipe_of(base, path, eval_share=0, test_share=0)
    manifest = prepare(recipe, run, silent)
    rejects = list(read_jsonl(run.folder("data") / "rejects.jsonl"))
    assert [(r["where"], r["reason"]) for r in rejects] == [
        (f"line {number}", reason) for number, (reason, _) in enumerate(bad, 1)
    ]
    wanted = {"train": 30, "eval": 0, "test": 0, "general": 2, "rejects": len(bad)}
    assert manifest.counts == wanted


WHOLE = "<think>\nhm\n</think>\n\nIt is 2."
MESSAGES = {
    "not_one_exchange": [
        [],
        [{"role": "user", "content": "Why?"}],
        [{"role": "user", "content": "Why?"}, *[{"role": "assistant", "content": "So."}] * 2],
    ],
    "not_text": [
        None,
        "text",
        [None],
        [{"role": "user", "content": None}, {"role": "assistant", "content": WHOLE}],
        [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": {}}],
    ],
}


def test_every_malformed_chat_is_a_counted_reject(base, tmp_path):
    bad = [(reason, chat) for reason, chats in MESSAGES.items() for chat in chats]
    good = [
        [
            {"role": "user", "content": f"{n} + 1?"},
            {"role": "assistant", "content": f"<think>\nsum\n</think>\n\nIt is {n + 1}."},
        ]
        for n in range(30)
    ]
    chats = [*[chat for _, chat in bad], *good]
    path = write_rows(tmp_path / "rows.jsonl", [{"reannotated_messages": chat} for chat in chats])
    run = Run(tmp_path / "run")
    prepare(recipe_of(base, path), run, silent)
    rejects = list(read_jsonl(run.folder("data") / "rejects.jsonl"))
    assert [(r["where"], r["reason"]) for r in rejects] == [
        (f"line {number}", reason) for number, (reason, _) in enumerate(bad, 1)
    ]


def test_odd_but_sound_text_is_kept_as_it_is(base, tmp_path):
    texts = ["e\u0301 and é", "\u202bשלום\u202c", "👩\u200d🚀", "a\r\nb"]
    rows = [record(n, problem=text) for n, text in enumerate(texts)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    run = Run(tmp_path / "run")
    prepare(recipe_of(base, path, eval_share=0, test_share=0), run, silent)
    kept = [row["question"] for row in read_jsonl(run.folder("data") / "train.jsonl")]
    assert kept == ["e\u0301 and é", "\u202bשלום\u202c", "👩\u200d🚀", "a\nb"]
