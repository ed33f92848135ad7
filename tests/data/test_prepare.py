"""The data folder: splits, rejects, encoded examples, and when nothing is done again."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.chat import Encoder, chat_format
from pipeline.data import prepare
from pipeline.data.read import chunks
from pipeline.data.work import gather, pool
from pipeline.errors import PipeError
from pipeline.run import Note, Progress, Run, silent
from pipeline.run.rows import read_jsonl
from tests.data.support import (
    contents,
    examples,
    general_record,
    recipe_of,
    record,
    rows_of,
    stats_of,
    write_rows,
)
from tests.support.tokenizer import SPECIALS


def test_prepare_writes_every_file_of_the_contract(base, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(200)])
    recipe = recipe_of(base, rows, eval_share=0.1, test_share=0.1, no_thinking_share=0.25)
    run, events = Run(tmp_path / "run"), []
    manifest = prepare(recipe, run, events.append)

    folder = run.folder("data")
    splits = {s: list(read_jsonl(folder / f"{s}.jsonl")) for s in ("train", "eval", "test")}
    counts = {split: len(found) for split, found in splits.items()}
    assert sorted(manifest.outputs) == [
        "encoded/eval.arrow",
        "encoded/general.arrow",
        "encoded/train.arrow",
        "eval.jsonl",
        "general.jsonl",
        "rejects.jsonl",
        "stats.json",
        "test.jsonl",
        "train.jsonl",
    ]
    assert manifest.counts == counts | {"general": 2, "rejects": 0}
    assert sum(counts.values()) == 200
    assert 8 <= counts["eval"] <= 35
    assert 8 <= counts["test"] <= 35
    assert splits["train"][0] | {"thinking": ...} == {
        "id": splits["train"][0]["id"],
        "source": "sums",
        "system": None,
        "question": f"What is {splits['train'][0]['id'][1:]} + 1?",
        "reasoning": splits["train"][0]["reasoning"],
        "answer": splits["train"][0]["answer"],
        "reference": splits["train"][0]["reference"],
        "thinking": ...,
    }
    assert "thinking" not in splits["test"][0]
    assert all(row["reasoning"] for found in splits.values() for row in found)
    without = sum(not row["thinking"] for row in splits["train"])
    assert 0.12 <= without / counts["train"] <= 0.38
    last = events[-1]
    assert isinstance(last, Progress)
    assert (last.done, last.total, last.unit) == (202, 202, "rows")
    assert manifest.facts["base"] == {"name": str(base), "revision": None}
    assert {"source-0/rows.jsonl", "general/few.jsonl"} < set(manifest.inputs)


def test_encoded_examples_are_those_of_the_encoder(base, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(60)])
    run = Run(tmp_path / "run")
    prepare(recipe_of(base, rows, eval_share=0.2, no_thinking_share=0.5), run, silent)
    encoder = Encoder(base / "tokenizer.json", chat_format("llama3.2-reasoning"))
    supervised = {}
    for split in ("train", "eval"):
        encoded = examples(run, split)
        wanted = [
            encoder.example(r["question"], r["reasoning"] if r["thinking"] else None, r["answer"])
            for r in read_jsonl(run.folder("data") / f"{split}.jsonl")
        ]
        assert [tuple(ids) for ids in encoded["input_ids"]] == [e.ids for e in wanted]
        assert list(encoded["target_start"]) == [e.target_start for e in wanted]
        assert str(encoded.features["input_ids"].feature.dtype) == "int32"
        supervised[split] = sum(len(e.ids) - e.target_start for e in wanted)
    general = examples(run, "general")
    supervised["general"] = sum(
        len(row["input_ids"]) - row["target_start"] for row in general.to_list()
    )
    assert stats_of(run)["supervised_tokens"] == supervised


def test_stats_of_a_single_row(base, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [record(1)])
    empty = write_rows(tmp_path / "empty.jsonl", [general_record(1, question=" ")])
    run = Run(tmp_path / "run")
    general = {"dataset": str(empty), "max_loss": 1}
    recipe = recipe_of(base, rows, eval_share=0, test_share=0, no_thinking_share=0, general=general)
    prepare(recipe, run, silent)
    encoder = Encoder(base / "tokenizer.json", chat_format("llama3.2-reasoning"))
    example = encoder.example("What is 1 + 1?", "1 and 1 is 2.", "It is 2.")
    n = len(example.ids)
    spread = {"sum": n, "min": n, "max": n} | {f"p{p}": n for p in (5, 25, 50, 75, 90, 95, 99)}
    edges = [0, 64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768]
    lengths = {
        "edges": edges,
        "rows": [int(low < n <= high) for low, high in pairwise([*edges, 10**9])],
        "longer_than": {"2048": 0.0, "4096": 0.0, "8192": 0.0, "16384": 0.0},
    }
    source = {
        "dataset": str(rows),
        "config": None,
        "records": 1,
        "rows": 1,
        "left_out": 0,
        "cut": 0,
        "rejects": {},
        "tokens": spread,
        "lengths": lengths,
    }
    nothing = source | {
        "dataset": str(empty),
        "rows": 0,
        "rejects": {"empty_question": 1},
        "tokens": None,
        "lengths": lengths | {"rows": [0] * len(edges)},
    }
    assert stats_of(run) == {
        "rows": {"train": 1, "eval": 0, "test": 0, "general": 0, "rejects": 1},
        "rejects": {"empty_question": 1},
        "sources": [source, nothing],
        "tokens": {"train": spread, "eval": None, "test": None},
        "supervised_tokens": {"train": n - example.target_start, "eval": 0, "general": 0},
        "lengths": lengths,
        "decontamination": {
            "benchmark_questions": 0,
            "by_benchmarks": 0,
            "by_own_questions": 0,
            "common_grams_passed_over": 0,
        },
    }
    assert len(examples(run, "eval")) == 0


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


def test_control_token_text_never_becomes_a_control_token(base, tmp_path):
    text = "".join(SPECIALS)
    reply = f"<think>\n{text}\n</think>\n\n{text}"
    attack = record(0, problem=text, reannotated_assistant_content=reply)
    path = write_rows(tmp_path / "rows.jsonl", [attack])
    run = Run(tmp_path / "run")
    recipe = recipe_of(
        base, path, max_seq_length=2048, eval_share=0, test_share=0, no_thinking_share=0
    )
    prepare(recipe, run, silent)
    encoder = Encoder(base / "tokenizer.json", chat_format("llama3.2-reasoning"))
    plain = encoder.example("q", "r", "a")
    first = encoder.end_of_turn_id - SPECIALS.index("<|eot_id|>")
    (ids,) = examples(run, "train")["input_ids"]
    assert [i for i in ids if i >= first] == [i for i in plain.ids if i >= first]


def test_test_rows_come_from_their_own_source(base, tmp_path):
    train = write_rows(tmp_path / "train.jsonl", [record(n) for n in range(50)])
    test = write_rows(tmp_path / "test.jsonl", [record(n) for n in range(100, 110)])
    recipe = recipe_of(base, train, test={"dataset": str(test)}, test_share=0.5)
    run = Run(tmp_path / "run")
    manifest = prepare(recipe, run, silent)
    assert [r["id"] for r in read_jsonl(run.folder("data") / "test.jsonl")] == [
        f"r{n}" for n in range(100, 110)
    ]
    assert manifest.counts["train"] + manifest.counts["eval"] == 50
    assert "test/test.jsonl" in manifest.inputs


def test_limit_takes_the_first_rows(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(50)])
    recipe = recipe_of(base, path)
    source = recipe.data.sources[0].model_copy(update={"limit": 20})
    data = recipe.data.model_copy(update={"sources": (source,)})
    events = []
    run = Run(tmp_path / "run")
    manifest = prepare(recipe.model_copy(update={"data": data}), run, events.append)
    assert manifest.counts["general"] == 2
    assert sum(manifest.counts.values()) == 20 + 2
    done = [(e.done, e.total) for e in events if isinstance(e, Progress)]
    assert done == [(20, 20), (2, 2), (22, 22)]


def test_parquet_gives_the_rows_that_jsonl_gives(base, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    records = [record(n) for n in range(30)] + [record(30, problem=None)]
    jsonl = write_rows(tmp_path / "rows.jsonl", records)
    parquet.write_table(pa.Table.from_pylist(records), tmp_path / "rows.parquet")
    runs = [Run(tmp_path / "a"), Run(tmp_path / "b")]
    prepare(recipe_of(base, jsonl), runs[0], silent)
    prepare(recipe_of(base, tmp_path / "rows.parquet"), runs[1], silent)
    for split in ("train", "eval", "test"):
        name = f"{split}.jsonl"
        assert (runs[0].folder("data") / name).read_bytes() == (
            runs[1].folder("data") / name
        ).read_bytes()
    (reject,) = read_jsonl(runs[1].folder("data") / "rejects.jsonl")
    assert (reject["where"], reject["reason"]) == ("row 31", "not_text")


def test_parquet_with_bytes_that_are_no_utf8(base, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist([record(n) for n in range(20)])
    raw = pa.array([b"\xff\xfe", *[f"Question {n}?".encode() for n in range(1, 20)]], pa.binary())
    column = table.schema.get_field_index("problem")
    table = table.set_column(column, "problem", raw.view(pa.string()))
    parquet.write_table(table, tmp_path / "rows.parquet")
    run = Run(tmp_path / "run")
    prepare(recipe_of(base, tmp_path / "rows.parquet"), run, silent)
    (reject,) = read_jsonl(run.folder("data") / "rejects.jsonl")
    assert (reject["where"], reject["reason"]) == ("row 1", "bad_encoding")


def test_two_runs_are_the_same_bytes(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(100)])
    recipe = recipe_of(base, path, eval_share=0.1)
    runs = [Run(tmp_path / "a"), Run(tmp_path / "b")]
    for run in runs:
        prepare(recipe, run, silent)
    assert contents(runs[0]) == contents(runs[1])
    assert "data/manifest.json" in contents(runs[0])


def test_a_second_prepare_does_nothing(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(30)])
    run, events = Run(tmp_path / "run"), []
    first = prepare(recipe_of(base, path), run, silent)
    assert prepare(recipe_of(base, path), run, events.append) == first
    assert events == [Note("data is up to date")]


@pytest.mark.parametrize("change", ["source", "output", "tokenizer", "length", "force"])
def test_what_changed_is_prepared_again(base, tmp_path, change):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(30)])
    run, events = Run(tmp_path / "run"), []
    prepare(recipe_of(base, path), run, silent)
    if change == "source":
        write_rows(path, [record(n) for n in range(31)])
    if change == "output":
        (run.folder("data") / "train.jsonl").write_text("")
    if change == "tokenizer":
        (base / "tokenizer_config.json").write_text('{"a": 1}')
    length = 257 if change == "length" else 256
    recipe = recipe_of(base, path, max_seq_length=length)
    prepare(recipe, run, events.append, force=change == "force")
    assert any(isinstance(event, Progress) for event in events)


def test_a_broken_manifest_is_made_again(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(30)])
    run = Run(tmp_path / "run")
    first = prepare(recipe_of(base, path), run, silent)
    (run.folder("data") / "manifest.json").write_text("{")
    assert prepare(recipe_of(base, path), run, silent) == first


def test_an_interrupt_leaves_what_was_there(base, tmp_path, monkeypatch):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(30)])
    run = Run(tmp_path / "run")
    prepare(recipe_of(base, path), run, silent)
    before = contents(run)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(gather, "parts_of", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(recipe_of(base, path), run, silent, force=True)
    assert contents(run) == before


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


def test_no_training_row_is_an_error(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(1)])
    with pytest.raises(PipeError, match="No training row is left") as error:
        prepare(recipe_of(base, path, eval_share=0.999999), Run(tmp_path / "run"), silent)
    assert error.value.message == (
        "No training row is left (train 0, eval 1, test 0, general 2, rejects 0). "
        "Rejected: nothing was rejected."
    )


def test_an_empty_split_that_was_asked_for_is_a_warning(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(1)])
    events = []
    recipe = recipe_of(base, path, eval_share=1e-9, test_share=0)
    prepare(recipe, Run(tmp_path / "run"), events.append)
    assert events[-1] == Note("no row fell to eval: raise data.eval_share", warning=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", "The data file {path} is not there."),
        ("rows.csv", "{path} is neither jsonl nor parquet."),
        ("rows.parquet", "{path} is no whole parquet file: "),
    ],
)
def test_what_is_no_source_is_named(base, tmp_path, name, message):
    path = tmp_path / name
    if name != "none.jsonl":
        path.write_text("a,b\n1,2\n")
    with pytest.raises(PipeError) as error:
        prepare(recipe_of(base, path), Run(tmp_path / "run"), silent)
    assert error.value.message.startswith(message.format(path=path))


def test_an_empty_file_is_an_error(base, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"")
    with pytest.raises(PipeError, match="Found: no record at all"):
        prepare(recipe_of(base, tmp_path / "rows.jsonl"), Run(tmp_path / "run"), silent)


def test_a_file_has_no_config(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [record(1)])
    recipe = recipe_of(base, path, test={"dataset": str(path), "config": "v0"})
    with pytest.raises(PipeError, match="a file has no config"):
        prepare(recipe, Run(tmp_path / "run"), silent)


def test_importing_the_room_loads_nothing_heavy():
    heavy = ["datasets", "pyarrow", "torch", "transformers", "huggingface_hub"]
    code = f"import sys, pipeline.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


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


def test_row_k_of_the_encoded_examples_is_line_k_of_the_rows(base, tmp_path, monkeypatch):
    """Whatever is dropped, left out or mixed in; test_resume has it from many processes."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 7)
    monkeypatch.setattr(pool, "ALONE", 10**6)
    bad = [b"{", record(1, reannotated_assistant_content="It is.")]
    a = write_rows(tmp_path / "a.jsonl", [*bad, *[record(n) for n in range(100)], record(5)])
    b = write_rows(tmp_path / "b.jsonl", [record(n) for n in range(200, 260)])
    more = write_rows(tmp_path / "more.jsonl", [general_record(n) for n in range(120)])
    sources = [{"dataset": str(a), "weight": 2}, {"dataset": str(b), "weight": 1}]
    recipe = recipe_of(
        base,
        *sources,
        general={"dataset": str(more)},
        general_share=0.2,
        eval_share=0.2,
        no_thinking_share=0.3,
    )
    run = Run(tmp_path / "run")
    prepare(recipe, run, silent)
    encoder = Encoder(base / "tokenizer.json", chat_format("llama3.2-reasoning"))
    for split, least in (("train", 90), ("eval", 10), ("general", 60)):
        rows, encoded = rows_of(run, split), examples(run, split)
        assert len(rows) == len(encoded) > least
        for row, example in zip(rows, encoded, strict=True):
            text = encoder.text_of(example["input_ids"])
            assert f"\n\n{row['question']}<|eot_id|>" in text
            assert text.endswith(f"{row['answer']}<|eot_id|>")


def test_a_disk_without_room_is_said_before_a_row_is_read(base, tmp_path, monkeypatch):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(30)])
    usage = shutil._ntuple_diskusage(10**6, 10**6 - 1000, 1000)
    monkeypatch.setattr("pipeline.run.disk.shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr(gather, "parts_of", pytest.fail)
    with pytest.raises(PipeError) as error:
        prepare(recipe_of(base, path), Run(tmp_path / "run"), silent)
    assert error.value.message.startswith("Preparing the rows needs 0.0")
    assert error.value.message.endswith(" GB are free.")
    assert not Run(tmp_path / "run").folder("data").exists()


def test_a_disk_that_is_full_half_way_keeps_what_was_there(base, tmp_path, monkeypatch):
    path = write_rows(tmp_path / "rows.jsonl", [record(n) for n in range(30)])
    run, recipe = Run(tmp_path / "run"), recipe_of(base, path)
    prepare(recipe, run, silent)
    before = contents(run)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PipeError, match=r"data could not be written: .*No space left") as error:
        prepare(recipe, run, silent, force=True)
    assert "make room" in error.value.hint
    assert contents(run) == before
