"""One pass, any number of threads and files: the same bytes, and nothing left of a failure."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipeline.base import base_at
from pipeline.chat import chat_format
from pipeline.engines.gguf_file import read_gguf
from pipeline.errors import PipeError
from pipeline.gguf.export import write_types
from pipeline.gguf.job import Job
from pipeline.recipe.schema import Export
from pipeline.run import Note, Progress, silent
from tests.gguf.reference import reference
from tests.gguf.support import Q, V, merged, write_adapter, write_base


@pytest.fixture
def job(tmp_path: Path) -> Job:
    base, adapter = write_base(tmp_path / "base"), write_adapter(tmp_path / "adapter")
    format = chat_format("llama3.2-reasoning")
    return Job("m", base_at(base), adapter, format, Export(), license="mit")


def written(job: Job, out: Path, types: Sequence[str], **asked: object) -> dict[str, bytes]:
    out.mkdir()
    files = write_types(replace(job, asked=Export(quantize=types, **asked)), out, silent).files
    assert sorted(path.name for path in out.iterdir()) == sorted(files.values())
    return {type: (out / name).read_bytes() for type, name in files.items()}


def tensor(path: Path, name: str) -> tuple[str, bytes]:
    (info,) = (each for each in read_gguf(path).tensors if each.name == name)
    return info.type, path.read_bytes()[info.offset : info.offset + info.bytes]


def test_files_of_one_pass_are_those_of_a_pass_each(job: Job, tmp_path: Path) -> None:
    types = ("Q4_K_M", "Q5_K_M", "Q8_0", "F16")
    together = written(job, tmp_path / "all", types)
    for type in types:
        assert written(job, tmp_path / type, [type])[type] == together[type]


def test_threads_and_slabs_change_no_byte(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = written(job, tmp_path / "one", ["Q6_K"])
    monkeypatch.setattr("pipeline.gguf.stream.cores", lambda: 7)
    monkeypatch.setattr("pipeline.gguf.merged._SLAB", 256 * 3)
    assert written(job, tmp_path / "seven", ["Q6_K"]) == one


@pytest.mark.parametrize("type", ["Q4_K_M", "Q3_K_M", "Q2_K"])
def test_the_bytes_are_ggmls_of_the_merged_weights(job: Job, tmp_path: Path, type: str) -> None:
    """Of every tensor that is quantized, from what a merged 16-bit checkpoint would hold."""
    written(job, tmp_path / "out", [type])
    found = merged(job.base.folder, job.adapter)
    for weight in found.weights:
        slabs = [slab for slab in found.slabs() if slab.weight == weight]
        values = np.concatenate([found.read(slab).float32 for slab in slabs])
        kind, data = tensor(tmp_path / "out" / f"m-{type}.gguf", weight.name)
        assert kind == "F32" or data == reference(kind, values).tobytes(), weight.name


def test_a_tensor_type_of_ones_own(job: Job, tmp_path: Path) -> None:
    written(job, tmp_path / "out", ["Q4_K_M"], tensor_types=["ffn_down=q8_0"])
    path = tmp_path / "out" / "m-Q4_K_M.gguf"
    assert tensor(path, "blk.1.ffn_down.weight")[0] == "Q8_0"
    assert tensor(path, "blk.1.ffn_up.weight")[0] == "Q4_K"


def test_the_16_bit_file_holds_the_merged_bits(job: Job, tmp_path: Path) -> None:
    written(job, tmp_path / "out", ["F16"])
    _, data = tensor(tmp_path / "out" / "m-F16.gguf", "blk.0.attn_v.weight")
    assert data == load_file(job.base.folder / "model.safetensors")[V].tobytes()


def test_a_failure_leaves_nothing(job: Job, tmp_path: Path) -> None:
    tensors = load_file(job.base.folder / "model.safetensors")
    tensors[Q][0, 0] = np.inf
    save_file(tensors, job.base.folder / "model.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(PipeError, match=f"{Q} holds NaN or infinity"):
        write_types(job, out, silent)
    assert list(out.iterdir()) == []


def test_a_full_disk_is_told_before_the_work(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(PipeError, match=r"Export needs 0\.\d{3} GB in .*, 0\.000 GB") as error:
        write_types(job, tmp_path, silent)
    assert "fewer types" in error.value.hint


def test_a_value_beyond_f16_is_refused_where_it_would_be_infinite(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    tensors = {
        name: values.astype(np.float32)
        for name, values in load_file(base / "model.safetensors").items()
    }
    tensors[V][0, 0] = 70000.0
    save_file(tensors, base / "model.safetensors")
    format = chat_format("llama3.2-reasoning")
    job = Job("m", base_at(base), None, format, Export(quantize=["F16"]), license="mit")
    with pytest.raises(PipeError, match=r"attn_v\.weight has values beyond 65504"):
        write_types(job, tmp_path, silent)
    other = replace(job, asked=Export(quantize=["BF16"]))
    assert write_types(other, tmp_path, silent).files == {"BF16": "m-BF16.gguf"}


def test_a_disk_that_fails_at_the_end_is_not_missed(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is waited for in a thread of its own: what it says last must be heard."""

    def failing(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pipeline.gguf.output._MANY", 1)
    monkeypatch.setattr("os.fsync", failing)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(OSError, match="Input/output error"):
        write_types(job, out, silent)
    assert list(out.iterdir()) == []


def test_what_settles_in_between_is_read_back(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread

    def torn(file: int, size: int, offset: int) -> bytes:
        data = bytearray(pread(file, size, offset))
        data[-1] ^= offset > 100_000
        return bytes(data)

    monkeypatch.setattr("pipeline.gguf.output._MANY", 1)
    monkeypatch.setattr("os.pread", torn)
    with pytest.raises(PipeError, match="reads back differently"):
        write_types(job, tmp_path, silent)
    assert not list(tmp_path.glob("*.gguf"))


def test_the_adapter_alone_is_refused_before_the_work(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    asked = Export(quantize=["Q8_0"], adapter_gguf=True)
    with pytest.raises(PipeError, match="no adapter to write alone"):
        write_types(replace(job, adapter=None, asked=asked), out, silent)
    assert list(out.iterdir()) == []
    done = write_types(replace(job, asked=asked), out, silent)
    assert done.files["adapter"] == "m-adapter.gguf"
    names = [tensor.name for tensor in read_gguf(out / "m-adapter.gguf").tensors]
    assert names == ["blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"]


def test_what_was_done_is_told(job: Job, tmp_path: Path) -> None:
    facts = write_types(replace(job, asked=Export(quantize=["Q4_K_M"])), tmp_path, silent).facts
    assert facts["tensor_types"] == {"Q4_K_M": {"Q4_K": 12, "Q6_K": 3, "F32": 6}}
    assert facts["adapter"]["ranks"] == [2]


def test_a_tokenizer_beside_the_adapter_is_the_one(job: Job, tmp_path: Path) -> None:
    """Tokens that training added stand there, also where the embedding had room for them."""
    assert job.adapter
    tokenizer = json.loads((job.base.folder / "tokenizer.json").read_text())
    used = {*tokenizer["model"]["vocab"].values(), *(t["id"] for t in tokenizer["added_tokens"])}
    number = max(used) + 1
    added = {"id": number, "content": "<|mine|>", "special": True}
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], **added})
    (job.adapter / "tokenizer.json").write_text(json.dumps(tokenizer))
    (job.adapter / "tokenizer_config.json").write_text("{}")
    written(job, tmp_path / "out", ["Q8_0"])
    metadata = read_gguf(tmp_path / "out" / "m-Q8_0.gguf").metadata
    assert metadata["tokenizer.ggml.tokens"][number] == "<|mine|>"


def test_the_first_use_says_that_it_compiles(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Progress | Note] = []
    written(job, tmp_path / "before", ["Q8_0"])  # loads what is compiled
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    write_types(replace(job, asked=Export(quantize=["Q8_0"])), tmp_path, events.append)
    assert any(isinstance(e, Note) and e.text.startswith("Compiling the kernels") for e in events)


def test_progress_counts_every_weight(job: Job, tmp_path: Path) -> None:
    events: list[Progress] = []
    write_types(job, tmp_path, events.append)  # type: ignore[arg-type]
    (last,) = [e for e in events if e.task == "quantize" and e.done == e.total]
    assert last.done == sum(weight.size for weight in merged(job.base.folder).weights)
