"""Importance matrices: what is read, what is refused, and how llama-imatrix is run."""

import json
import sys
from itertools import pairwise

import gguf
import numpy as np
import pyarrow
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.chat import Encoder, chat_format
from pipeline.errors import NativeCrash, PipeError
from pipeline.gguf import importance
from pipeline.gguf.importance import (
    Importance,
    Text,
    collect_importance,
    read_importance,
    training_text,
)
from pipeline.gguf.mix import Shape
from pipeline.run import Progress, silent
from tests.data.support import prepared, recipe_of, record, write_rows
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tokenizer import write_base

NAME = "blk.0.attn_q.weight"
SUMS = np.arange(1, 9, dtype=np.float32)
FORMAT = chat_format("llama3.2-reasoning")


def write_matrix(path, entries, *, whole=True, **keys):
    """`entries` maps a name to its sums and its counts; either may be None."""
    writer = gguf.GGUFWriter(path, "")
    types = {list: writer.add_array, str: writer.add_string, float: writer.add_float32}
    types |= {int: writer.add_int64, bool: writer.add_bool}
    given = {"datasets": ["rows.txt"], "chunk_size": 512, "chunk_count": 2} | keys
    for key, value in given.items():
        if whole or key != "chunk_count":
            types[type(value)](f"imatrix.{key}", value)
    for name, (sums, counts) in entries.items():
        for suffix, values in (("in_sum2", sums), ("counts", counts)):
            if values is not None:
                writer.add_tensor(f"{name}.{suffix}", np.asarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_column_counts_by_its_mean_square(tmp_path):
    path = write_matrix(tmp_path / "i.gguf", {NAME: (SUMS, [3])})
    found = read_importance(path)
    values = found.entries[NAME]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, SUMS / np.float32(3))
    assert (found.datasets, found.chunks, found.context) == (("rows.txt",), 2, 512)
    assert set(found.entries) == {NAME}


def test_what_nothing_was_counted_for_weighs_alike(tmp_path):
    found = read_importance(write_matrix(tmp_path / "i.gguf", {NAME: (SUMS, [0])}))
    np.testing.assert_array_equal(found.entries[NAME], np.ones(8, np.float32))


def test_a_file_says_what_it_was_quantized_with(tmp_path):
    path = write_matrix(tmp_path / "importance.gguf", {NAME: (SUMS, [3])}, chunk_count=7)
    assert read_importance(path).metadata() == {
        "quantize.imatrix.file": "importance.gguf",
        "quantize.imatrix.dataset": "rows.txt",
        "quantize.imatrix.entries_count": 1,
        "quantize.imatrix.chunks_count": 7,
    }


@pytest.mark.parametrize(
    ("dataset", "said"),
    [("/home/someone/rows.txt", "rows.txt"), ("C:\\Users\\someone\\rows.txt", "rows.txt"),
     ("", None), ("/", None), (None, None)],
)  # fmt: skip
def test_a_file_says_no_folder_of_the_text(dataset, said, tmp_path):
    datasets = () if dataset is None else (dataset, "/second.txt")
    found = Importance(tmp_path / "importance.gguf", {}, datasets, 7, 512).metadata()
    assert found.get("quantize.imatrix.dataset") == said
    assert not any("/" in str(value) or "\\" in str(value) for value in found.values())


@pytest.mark.parametrize(
    ("entries", "options", "says"),
    [
        ({}, {}, "no importance matrix"),
        ({NAME: (None, [3])}, {}, "no importance matrix"),
        ({NAME: (SUMS, [3])}, {"whole": False}, "no importance matrix"),
        ({NAME: (SUMS, None)}, {}, f"no F32 sums and counts for {NAME}"),
        ({NAME: (SUMS, [[3], [3]])}, {}, "2 experts"),
        ({NAME: ([1, np.nan], [3])}, {}, f"NaN or infinity for {NAME}"),
        ({NAME: (SUMS, [np.inf])}, {}, f"NaN or infinity for {NAME}"),
        ({NAME: (SUMS, [3])}, {"datasets": "rows.txt"}, "no usable imatrix.datasets"),
        ({NAME: (SUMS, [3])}, {"datasets": [1, 2]}, "no usable imatrix.datasets"),
        ({NAME: (SUMS, [3])}, {"chunk_count": "7"}, "no usable imatrix.chunk_count"),
        ({NAME: (SUMS, [3])}, {"chunk_count": -1}, "no usable imatrix.chunk_count"),
        ({NAME: (SUMS, [3])}, {"chunk_size": 1.5}, "no usable imatrix.chunk_size"),
        ({NAME: (SUMS, [3])}, {"chunk_size": True}, "no usable imatrix.chunk_size"),
    ],
)
def test_a_file_that_is_no_matrix_of_a_llama_is_refused(entries, options, says, tmp_path):
    path = write_matrix(tmp_path / "i.gguf", entries, **options)
    with pytest.raises(PipeError, match=says):
        read_importance(path)


def test_a_torn_a_foreign_and_a_missing_file_are_refused(tmp_path):
    path = write_matrix(tmp_path / "i.gguf", {NAME: (SUMS, [3])})
    whole = path.read_bytes()
    for kept in (3, 40, len(whole) - 40):
        path.write_bytes(whole[:kept])
        with pytest.raises(PipeError) as caught:
            read_importance(path)
        assert "llama-imatrix" in caught.value.hint and "--force" not in caught.value.hint
    path.write_bytes((1).to_bytes(4, "little") + b"legacy")
    with pytest.raises(PipeError, match=r"--in-file i\.gguf"):
        read_importance(path)
    with pytest.raises(PipeError, match="There is no importance matrix"):
        read_importance(tmp_path / "none.gguf")


def test_a_matrix_of_another_model_is_refused(tmp_path):
    path = write_matrix(tmp_path / "i.gguf", {NAME: (SUMS, [3])})
    found = read_importance(path)
    norm = Shape("blk.0.attn_norm.weight", 1, 8)
    found.check_fit([Shape(NAME, 4, 8), norm, Shape("token_embd.weight", 40, 8)])
    for tensors, says in (
        ([Shape(NAME, 4, 16)], "8 values for blk.0.attn_q.weight, which has 16 columns"),
        ([Shape("blk.0.attn_k.weight", 4, 8)], "which has no columns"),
        ([Shape(NAME, 4, 8), Shape("blk.1.attn_q.weight", 4, 8)], "nothing for blk.1.attn_q"),
    ):
        with pytest.raises(PipeError, match=says):
            found.check_fit(tensors)


@given(st.integers(0, 300), st.integers(0, 2**32))
@example(258, 0)
def test_rows_are_taken_once_each_and_evenly(rows, seed):
    order = list(importance._spread(rows, seed))
    assert sorted(order) == list(range(rows))
    for taken in (5, 20, 60):
        if rows >= 4 * taken:
            places = sorted(order[:taken])
            gaps = np.diff([*places, places[0] + rows])
            assert gaps.max() <= 3 * rows / taken


@pytest.fixture
def run(tmp_path, base):
    """Twenty training rows; the content of one spells a control token."""
    rows = [record(n) for n in range(20)]
    rows[7]["problem"] = "What does <|eot_id|> mean?"
    path = write_rows(tmp_path / "rows.jsonl", rows)
    recipe = recipe_of(base, path, eval_share=0.0, test_share=0.0, dedupe={"questions": "keep"})
    return prepared(tmp_path / "run", recipe)


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")


@pytest.fixture
def encoder(base):
    return Encoder(base / "tokenizer.json", FORMAT)


def trained_on(run):
    path = run.folder("data") / "encoded" / "train.arrow"
    with pyarrow.ipc.open_stream(path.read_bytes()) as stream:
        return [tuple(ids) for ids in stream.read_all()["input_ids"].to_pylist()]


def test_the_text_reads_as_the_ids_that_were_trained_on(run, encoder):
    rows = trained_on(run)
    assert len(rows) == 20
    texts = list(training_text(run, encoder, 10**6, seed=1))
    read = [tuple(encoder.whole(text)) for text, _ in texts]
    spelled = {ids for ids in rows if "<|eot_id|> mean" in encoder.text_of(ids)}
    assert len(spelled) == 1
    assert set(read) == set(rows) - spelled and len(read) == 19
    whole = encoder.whole("".join(text for text, _ in texts))
    assert whole == [number for ids in read for number in ids]


def test_the_text_has_as_many_tokens_as_asked_for_and_no_row_more(run, encoder):
    texts = list(training_text(run, encoder, 200, seed=5))
    lengths = [len(encoder.whole(text)) for text, _ in texts]
    assert lengths == [tokens for _, tokens in texts]
    assert sum(lengths[:-1]) < 200 <= sum(lengths)
    assert texts == list(training_text(run, encoder, 200, seed=5))
    assert texts != list(training_text(run, encoder, 200, seed=6))


PROGRAM = """#!{python}
import json, os, pathlib, shutil, signal, sys
arguments = dict(zip(sys.argv[1:], sys.argv[2:]))
text = pathlib.Path(arguments["-f"]).read_bytes().decode()
told = dict(arguments=sys.argv[1:], text=text, environment=dict(os.environ))
pathlib.Path({told!r}).write_text(json.dumps(told))
print("computing over 2 chunks, n_ctx=64", file=sys.stderr)
print("[1]12.5,", end="", flush=True)
{ending}
print("[2]11.25,\\nFinal estimate: PPL = 11.25")
shutil.copyfile({matrix!r}, arguments["-o"])
"""


class Fake:
    """A llama-imatrix that notes how it was called, and a model to call it with."""

    def __init__(self, folder, monkeypatch):
        self.folder, self._path = folder, folder / "llama-imatrix"
        self.told_at = folder / "told.json"
        self.matrix = write_matrix(folder / "matrix.gguf", {NAME: (SUMS, [3])})
        self.model = write_tiny_gguf(folder / "model.gguf", "")
        (folder / "out").mkdir()
        self.out = folder / "out" / "importance.gguf"
        monkeypatch.setattr(importance, "_program", lambda: self._path)
        self.ends_with("")

    def ends_with(self, ending):
        names = {"told": str(self.told_at), "matrix": str(self.matrix), "python": sys.executable}
        self._path.write_text(PROGRAM.format(ending=ending, **names))
        self._path.chmod(0o755)

    def collect(self, tokens=64, emit=silent):
        texts = [Text("<|begin_of_text|>a\r\n", tokens), Text("<|begin_of_text|>b", 64)]
        return collect_importance(self.model, texts, self.out, context=64, chunks=3, emit=emit)

    def told(self):
        return json.loads(self.told_at.read_text())


@pytest.fixture
def fake(tmp_path, monkeypatch):
    return Fake(tmp_path, monkeypatch)


def test_the_program_gets_the_rows_and_nothing_from_outside(fake, monkeypatch):
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "4096")
    found = fake.collect()
    assert found.path == fake.out and NAME in found.entries
    told = fake.told()
    # llama.cpp puts BOS before the whole text itself
    assert told["text"] == "a\r\n<|begin_of_text|>b"
    assert not [key for key in told["environment"] if key.startswith("LLAMA_")]
    arguments = told["arguments"]
    given = dict(pairwise(arguments))
    assert "--parse-special" in arguments
    assert (given["-c"], given["-b"], given["--chunks"], given["-f"]) == (
        "64",
        "64",
        "3",
        "training-rows.txt",
    )


def test_progress_is_told_by_the_chunk(fake):
    events = []
    fake.collect(emit=events.append)
    assert events == [
        Progress("importance", 1, 2, "chunks", {"perplexity": "12.5"}),
        Progress("importance", 2, 2, "chunks", {"perplexity": "11.25"}),
    ]


@pytest.mark.parametrize(
    ("ending", "kind", "says"),
    [
        ("sys.exit('non-finite values detected in x')", PipeError, "non-finite values detected"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", NativeCrash, "died with SIGSEGV"),
        ("sys.exit(0)", PipeError, "There is no importance matrix"),
    ],
)
def test_a_failure_says_why_and_leaves_nothing(ending, kind, says, fake):
    fake.ends_with(ending)
    with pytest.raises(PipeError) as error:
        fake.collect()
    assert type(error.value) is kind and says in str(error.value)
    assert list(fake.out.parent.iterdir()) == []


def test_too_few_tokens_are_refused_before_the_program_runs(fake):
    with pytest.raises(PipeError, match=r"have 127 tokens; .* at least 128"):
        fake.collect(tokens=63)
    assert not fake.told_at.exists()


def test_an_interruption_ends_the_program_and_leaves_nothing(fake):
    fake.ends_with("import time; time.sleep(600)")

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fake.collect(emit=interrupt)
    assert list(fake.out.parent.iterdir()) == []


def test_a_build_without_the_program_names_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(importance.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(PipeError, match="LLAMA_TOOLS_INSTALL=ON"):
        importance._program()
