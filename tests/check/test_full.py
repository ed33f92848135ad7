"""The gates of a run that was trained in full: its model stands where an adapter would."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from pipeline.check.gates import Gate, applicable, judge
from pipeline.check.merge import Change, differing, fit
from pipeline.check.subject import Subject
from pipeline.check.subjects import run_subject
from pipeline.check.table import PROBES
from pipeline.check.tensors import Stored, Weights
from pipeline.engines.gguf_file import read_gguf
from pipeline.run import silent
from pipeline.workflow import Work, export
from pipeline.workflow.checks import part_of
from tests.check.test_merge import CONFIG, HIDDEN, NAMES, SHAPES, written
from tests.support.exported import demo
from tests.support.full import run_in_full
from tests.support.ollama import free_port

F32 = NDArray[np.float32]
TYPES = ("BF16", "Q8_0", "Q4_K_M")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
    recipe = demo("train.method=full", f"export.quantize=[{','.join(TYPES)}]")
    work = Work(recipe, run_in_full(tmp_path / "runs" / "demo", recipe), silent)
    export(work)
    return work


@pytest.fixture
def subject(work: Work, tmp_path: Path) -> Iterator[Subject]:
    found = run_subject(part_of(work), tmp_path / "scratch")
    yield found
    found.close()


def judged(subject: Subject, name: str) -> Gate:
    return judge(next(probe for probe in PROBES if probe.name == name), subject)


def test_every_tensor_holds_what_training_changed_and_the_16_bit_ones_to_the_bit(
    subject: Subject,
) -> None:
    gate = judged(subject, "merge")
    assert (gate.status, gate.reason) == ("passed", "")
    assert "of the training's change" in gate.compared and "adapter" not in gate.compared
    assert "BF16 as a whole 1.000; Q8_0 as a whole 1.000; Q4_K_M as a whole 1.0" in gate.compared
    # all 29 of the BF16 file, and the 7 norms of each other one
    assert "43 that are not quantized are the trained ones to the bit" in gate.compared


@pytest.mark.parametrize("type", TYPES)
def test_a_file_of_the_base_fails_and_is_named(
    work: Work, subject: Subject, tmp_path: Path, type: str
) -> None:
    made = subject.run.make(tmp_path, (type,), tuned=False)[type]
    shutil.copyfile(made, subject.files[type])
    gate = judged(subject, "merge")
    assert gate.status == "failed" and gate.reason.startswith(f"{type}: ")
    assert "is not the trained tensor" in gate.reason or "of the training's change" in gate.reason


def test_one_weight_of_a_16_bit_file_that_is_another_is_counted(subject: Subject) -> None:
    path = subject.files["BF16"]
    tensor = next(t for t in read_gguf(path).tensors if t.name == "blk.1.ffn_up.weight")
    data = bytearray(path.read_bytes())
    data[tensor.offset + 8] ^= 1
    path.write_bytes(data)
    reason = judged(subject, "merge").reason
    assert reason == "BF16: blk.1.ffn_up.weight is not the trained tensor: 1 weights differ"


def test_the_adapter_s_own_gate_is_left_out(subject: Subject) -> None:
    assert "adapter kept" not in {probe.name for probe in applicable(PROBES, subject)}
    assert "adapter" not in subject.parts and "server" not in subject.parts


def test_the_output_is_tied_as_the_trained_model_says(subject: Subject) -> None:
    gate = judged(subject, "tied embeddings")
    assert gate.status == "passed" and "are tied" in gate.compared


@pytest.mark.parametrize("type", ["F16", "BF16"])
def test_weights_are_held_against_their_rounding_to_the_type(tmp_path: Path, type: str) -> None:
    """gguf's own rounding of fp32, with values that F16 holds as subnormals."""
    random = np.random.default_rng(5)
    before = {n: random.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}
    after = {n: v + 0.01 * random.standard_normal(v.shape) for n, v in before.items()}
    after = {name: values.astype(np.float32) for name, values in after.items()}
    after["model.embed_tokens.weight"][3] *= np.float32(1e-6)
    shards = {name: tmp_path / f"{name}.safetensors" for name in ("before", "after")}
    save_file(before, shards["before"])
    save_file(after, shards["after"])
    base, model = (Weights([shards[name]], CONFIG) for name in ("before", "after"))
    stored = Stored(read_gguf(written(tmp_path, after, type)))
    for name in NAMES.values():
        tensor, change = stored.tensors[name], Change(base.tensors[name], model.tensors[name])
        assert differing(stored, tensor, model) == 0
        assert differing(stored, tensor, base) == tensor_size(tensor.shape)
        assert fit(stored, tensor, base, change).fault() is None
    quantized = Stored(read_gguf(written(tmp_path, after, "Q8_0")))
    assert differing(quantized, quantized.tensors["token_embd.weight"], model) is None
    assert differing(quantized, quantized.tensors["output_norm.weight"], model) == 0


def tensor_size(shape: tuple[int, ...]) -> float:
    """Nearly all: a hundredth's change is lost in few of them."""
    return pytest.approx(np.prod(shape), rel=0.2)


def test_a_change_is_read_row_by_row(tmp_path: Path) -> None:
    one, two = np.arange(6 * HIDDEN, dtype=np.float32).reshape(6, HIDDEN), np.ones((6, HIDDEN))
    save_file({"model.embed_tokens.weight": one}, tmp_path / "a.safetensors")
    save_file({"model.embed_tokens.weight": two.astype(np.float16)}, tmp_path / "b.safetensors")
    a, b = (Weights([tmp_path / f"{name}.safetensors"], CONFIG) for name in "ab")
    change = Change(a.tensors["token_embd.weight"], b.tensors["token_embd.weight"])
    rows = np.array([4, 0])
    assert (change[rows] == 1 - one[rows]).all()
