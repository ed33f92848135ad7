"""The exported files against llama.cpp itself: its quantizer's bytes, and its logits."""

import os
import subprocess
import sysconfig
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from pipeline.assets import asset
from pipeline.base import open_base
from pipeline.chat import Encoder, chat_format
from pipeline.engines.gguf_file import GgufFile, read_gguf
from pipeline.recipe.schema import Model, QuantType
from pipeline.run.rows import read_jsonl
from tests.e2e.conftest import Demo

pytestmark = pytest.mark.e2e

LIBRARY = Path(sysconfig.get_path("platlib"))
TYPES = get_args(QuantType)
QUANTIZED = [type for type in TYPES if type not in ("F16", "BF16")]
OWN_KEYS = {"general.file_type", "general.quantization_version"}


@pytest.fixture(scope="module")
def files(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every type of the demo's model, and the same with an importance matrix in `weighed`."""
    out = tmp_path_factory.mktemp("files")
    adapter = demo.run.folder("train") / "adapter"
    types = [word for type in TYPES for word in ("--quantize", type)]
    given = ["--base", str(asset("data/tiny-llama")), "--adapter", str(adapter), *types]
    demo.pipe("export", *given, "--out", str(out), "--no-register")
    importance = ["--set", "export.importance.tokens=8192", "--imatrix", "train"]
    demo.pipe("export", "--run", "demo", "--quantize", "Q8_0", *importance, "--no-register")
    matrix = demo.run.folder("export") / "importance.gguf"
    demo.pipe(
        "export", *given, "--out", str(out / "weighed"), "--imatrix", str(matrix), "--no-register"
    )
    (out / "importance.gguf").write_bytes(matrix.read_bytes())
    return out


def quantized_by_llama_cpp(files: Path, type: str, *options: str) -> Path:
    out = files / f"theirs-{type}.gguf"
    program = str(LIBRARY / "bin" / "llama-quantize")
    subprocess.run(
        [program, *options, str(files / "my-model-BF16.gguf"), str(out), type, "1"],
        env={**os.environ, "LD_LIBRARY_PATH": str(LIBRARY / "lib")},
        check=True,
        capture_output=True,
    )
    return out


def contents(file: GgufFile) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    data = file.path.read_bytes()
    return {t.name: (t.type, t.shape, data[t.offset : t.offset + t.bytes]) for t in file.tensors}


@pytest.mark.parametrize("type", QUANTIZED)
def test_every_tensor_is_the_one_that_llama_quantize_makes(files: Path, type: str) -> None:
    theirs = read_gguf(quantized_by_llama_cpp(files, type))
    ours = read_gguf(files / f"my-model-{type}.gguf")
    assert contents(ours) == contents(theirs)
    assert dict(ours.metadata) == dict(theirs.metadata)


@pytest.mark.parametrize("type", QUANTIZED)
def test_so_it_is_with_an_importance_matrix(files: Path, type: str) -> None:
    options = ("--imatrix", str(files / "importance.gguf"))
    theirs = read_gguf(quantized_by_llama_cpp(files, type, *options))
    ours = read_gguf(files / "weighed" / f"my-model-{type}.gguf")
    assert contents(ours) == contents(theirs)
    keys = [key for key in theirs.metadata if key.startswith("quantize.imatrix")]
    assert len(keys) == 4
    assert {k: ours.metadata[k] for k in keys[1:]} == {k: theirs.metadata[k] for k in keys[1:]}


def test_llama_cpp_computes_what_transformers_does(files: Path, demo: Demo) -> None:
    """Mean KL divergence at most 5e-4 nats and the same top token on 99% of positions."""
    import torch
    from llama_cpp import Llama

    from pipeline.engines.loading import load_model

    base = open_base(Model(base="builtin:tiny-llama"))
    encoder = Encoder(base.folder / "tokenizer.json", chat_format("llama3.2-reasoning"))
    rows = list(read_jsonl(demo.run.folder("data") / "test.jsonl"))[:40]
    adapter = demo.run.folder("train") / "adapter"
    merged = load_model("merged", base, adapter, device="cpu")
    llama = Llama(
        str(files / "my-model-BF16.gguf"), n_ctx=512, logits_all=True, n_threads=2, verbose=False
    )
    divergences, same = [], []
    for row in rows:
        ids = encoder.prompt([{"role": "user", "content": row["question"]}])
        target = encoder.format.target(row["reasoning"], row["answer"])
        ids += encoder.content_ids(target)
        llama.reset()
        llama.eval(ids)
        theirs = torch.tensor(np.array(llama.scores[: len(ids)]), dtype=torch.float64)
        with torch.inference_mode():
            ours = merged(torch.tensor([ids])).logits[0].double()
        p, q = ours.log_softmax(-1), theirs.log_softmax(-1)
        divergences.append((p.exp() * (p - q)).sum(-1))
        same.append(ours.argmax(-1) == theirs.argmax(-1))
    assert torch.cat(divergences).mean() <= 5e-4
    assert torch.cat(same).double().mean() >= 0.99
