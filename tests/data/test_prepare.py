"""The data folder: its files, its splits, and the encoded examples of its rows."""

import subprocess
import sys
from itertools import pairwise

import pytest

from pipeline.chat import Encoder, chat_format
from pipeline.data import prepare
from pipeline.data.read import chunks
from pipeline.data.work import pool
from pipeline.errors import PipeError
from pipeline.run import Note, Progress, Run, silent
from pipeline.run.rows import read_jsonl
from tests.data.support import (
    ALL,
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
    recipe = recipe_of(base, rows, general=general, **ALL)
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


def test_control_token_text_never_becomes_a_control_token(base, tmp_path):
    text = "".join(SPECIALS)
    reply = f"<think>\n{text}\n</think>\n\n{text}"
    attack = record(0, problem=text, reannotated_assistant_content=reply)
    path = write_rows(tmp_path / "rows.jsonl", [attack])
    run = Run(tmp_path / "run")
    recipe = recipe_of(base, path, max_seq_length=2048, **ALL)
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


def test_importing_the_room_loads_nothing_heavy():
    heavy = ["datasets", "pyarrow", "torch", "transformers", "huggingface_hub"]
    code = f"import sys, pipeline.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


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
