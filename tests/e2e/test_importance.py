"""llama-imatrix on a real file, and llama-quantize with what it wrote, against our reading."""

import ctypes
import os
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from pipeline.chat import Encoder, chat_format
from pipeline.engines.gguf_file import read_gguf
from pipeline.gguf.importance import Text, collect_importance, read_importance
from pipeline.gguf.kernels import row_bytes
from pipeline.gguf.mix import Shape
from pipeline.run import silent
from tests.support import tiny_gguf
from tests.support.tokenizer import write_base

pytestmark = pytest.mark.e2e

WHEEL = Path(sysconfig.get_path("platlib"))
CONTEXT = 64
FORMAT = chat_format("llama3.2-reasoning")


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Wide enough that rows fill the blocks of 256 that Q4_K has."""
    for name, value in {"HIDDEN": 256, "HEAD": 64, "FFN": 512}.items():
        monkeypatch.setattr(tiny_gguf, name, value)
    return tiny_gguf.write_tiny_gguf(tmp_path / "model.gguf", FORMAT.jinja)


@pytest.fixture
def texts(tmp_path):
    encoder = Encoder(write_base(tmp_path / "base") / "tokenizer.json", FORMAT)
    rows = [
        encoder.example(f"What is {n} + 1?", f"{n} and 1.", f"It is {n + 1}.") for n in range(60)
    ]
    return [Text(encoder.text_of(row.ids), len(row.ids)) for row in rows]


def quantized(model, importance):
    """llama-quantize's Q4_K_M of the model."""
    out = model.with_name("Q4_K_M.gguf")
    subprocess.run(
        [
            WHEEL / "bin/llama-quantize",
            "--imatrix",
            importance.name,
            model.name,
            out.name,
            "Q4_K_M",
        ],
        cwd=model.parent,
        env={**os.environ, "LD_LIBRARY_PATH": str(WHEEL / "lib")},
        capture_output=True,
        check=True,
    )
    return read_gguf(out)


def tensor_bytes(file, name):
    info = next(info for info in file.tensors if info.name == name)
    return info, np.fromfile(file.path, np.uint8, info.bytes, offset=info.offset)


def quantize_chunk(values, weights):
    """llama.cpp's own Q4_K of F32 [rows, columns]."""
    ggml = ctypes.CDLL(str(WHEEL / "lib/libggml-base.so"))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    pointer = ctypes.POINTER(ctypes.c_float)
    rows, columns = values.shape
    out = np.empty(rows * row_bytes("Q4_K", columns), np.uint8)
    q4_k = 12
    ggml.ggml_quantize_chunk(
        q4_k,
        values.ctypes.data_as(pointer),
        out.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(0),
        ctypes.c_int64(rows),
        ctypes.c_int64(columns),
        None if weights is None else weights.ctypes.data_as(pointer),
    )
    return out


def test_llama_quantize_takes_the_values_that_we_read(model, texts, tmp_path):
    out = tmp_path / "importance.gguf"
    found = collect_importance(model, texts, out, context=CONTEXT, chunks=20, emit=silent)
    source, file = read_gguf(model), quantized(model, out)
    shapes = [Shape(t.name, *([1, *t.shape[::-1]][-2:])) for t in source.tensors]
    found.check_fit(shapes)
    compared = 0
    for name, weights in found.entries.items():
        info, theirs = tensor_bytes(file, name)
        if info.type == "Q4_K":
            values = tensor_bytes(source, name)[1].view(np.float16).astype(np.float32)
            values = values.reshape(info.shape[::-1])
            assert quantize_chunk(values, weights).tobytes() == theirs.tobytes(), name
            assert quantize_chunk(values, None).tobytes() != theirs.tobytes(), name
            compared += 1
    assert compared >= 10
    said = {k: v for k, v in file.metadata.items() if k.startswith("quantize.imatrix.")}
    assert said == found.metadata()


def test_the_same_text_gives_the_same_bytes_on_any_number_of_cores(
    model, texts, tmp_path, monkeypatch
):
    found = []
    for cores in ({0}, {0, 1}, {0, 1, 2}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        out = tmp_path / "importance.gguf"
        collect_importance(model, texts, out, context=CONTEXT, chunks=8, emit=silent)
        found.append(out.read_bytes())
    assert found[0] == found[1] == found[2]


def test_every_token_of_the_text_is_counted_once(model, texts, tmp_path):
    """Control tokens are parsed, and llama.cpp's BOS takes the place of the first row's."""
    encoder = Encoder(tmp_path / "base" / "tokenizer.json", FORMAT)
    tokens = len(encoder.whole("".join(text for text, _ in texts)))
    assert tokens == sum(count for _, count in texts)
    events = []
    for context, chunks in ((tokens // 4, 4), (tokens // 3 + 1, 2)):
        out = tmp_path / "importance.gguf"
        collect_importance(model, texts, out, context=context, chunks=9, emit=events.append)
        assert read_importance(out).chunks == chunks
    assert [(event.done, event.total) for event in events] == [
        (1, 4), (2, 4), (3, 4), (4, 4), (1, 2), (2, 2),
    ]  # fmt: skip
    assert float(events[3].figures["perplexity"]) > 1
