"""An importance matrix of a run's own rows: the text, and how llama-imatrix is run on it."""

import json
import sys
from itertools import pairwise

import numpy as np
import pyarrow
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.chat import Encoder, chat_format
from pipeline.errors import NativeCrash, PipeError
from pipeline.gguf import importance
from pipeline.gguf.importance import Text, collect_importance, training_text
from pipeline.run import Progress, silent
from tests.data.support import prepared, recipe_of, record, write_rows
from tests.gguf.matrices import NAME, SUMS, write_matrix
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tokenizer import write_base

FORMAT = chat_format("llama3.2-reasoning")


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
