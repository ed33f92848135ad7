"""File gates: each on a file, or training rows, with the one fault that it is about."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from safetensors.numpy import save_file

from pipeline.check import file
from pipeline.engines.gguf_file import GgufFile, TensorInfo, read_gguf
from tests.check.fakes import FORMAT, IDS, TOKENS, FakeLlama, subject
from tests.support.tiny_gguf import write_tiny_gguf

END = IDS[FORMAT.end_of_turn]


def with_metadata(tmp_path: Path, **changed: Any) -> GgufFile:
    metadata = {
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.eos_token_id": END,
        "tokenizer.ggml.eot_token_id": END,
        **{f"tokenizer.ggml.{key}": value for key, value in changed.items()},
    }
    return GgufFile(tmp_path / "x.gguf", metadata, ())


def with_tensors(tmp_path: Path, tensors: Mapping[str, tuple[int, ...]]) -> GgufFile:
    infos = tuple(TensorInfo(name, shape, "F16", 0, 0) for name, shape in tensors.items())
    return GgufFile(tmp_path / "x.gguf", {"tokenizer.ggml.tokens": TOKENS}, infos)


def rows(tmp_path: Path, each: Sequence[tuple[list[int], int]]) -> Any:
    """A run whose encoded training rows are these (ids, target_start)."""
    folder = tmp_path / "data" / "encoded"
    folder.mkdir(parents=True)
    table = pyarrow.table(
        {
            "input_ids": pyarrow.array([i for i, _ in each], pyarrow.list_(pyarrow.int32())),
            "target_start": pyarrow.array([start for _, start in each], pyarrow.int32()),
        }
    )
    with pyarrow.ipc.new_stream(str(folder / "train.arrow"), table.schema) as stream:
        stream.write_table(table, max_chunksize=2)
    return SimpleNamespace(folder=lambda stage: tmp_path / stage)


def test_rows_that_end_their_turn_pass(tmp_path: Path) -> None:
    asked = subject(tmp_path)
    asked.run.run = rows(tmp_path, [([1, 2, END], 1), ([3, END], 1), ([4, 5, 6, END], 3)])
    assert file.learned_end(asked) == ("last label of 3 training rows", [])


@pytest.mark.parametrize(
    "fault",
    [([1, 2, 3], 1), ([1, 2, IDS[FORMAT.pad]], 1), ([1, 2, END], 3)],
    ids=["a cut row", "padding learned", "an end that is not supervised"],
)
def test_a_row_that_does_not_teach_the_end_of_turn_is_named(
    tmp_path: Path, fault: tuple[list[int], int]
) -> None:
    asked = subject(tmp_path)
    good = ([1, 2, END], 1)
    asked.run.run = rows(tmp_path, [good, good, good, fault, good])
    _, wrong = file.learned_end(asked)
    assert len(wrong) == 1 and wrong[0].startswith("training row 3 ends with ")


def test_a_pad_token_that_is_the_end_of_turn_fails(tmp_path: Path) -> None:
    asked = subject(tmp_path)
    asked.run.run = rows(tmp_path, [([1, END], 1)])
    asked.run.encoder.pad_id = END  # type: ignore[misc]
    assert "which padding hides" in file.learned_end(asked)[1][0]


def test_the_ends_that_a_good_file_names_pass(tmp_path: Path) -> None:
    asked = subject(tmp_path)
    asked.headers = {"F16": with_metadata(tmp_path)}  # type: ignore[misc]
    compared, wrong = file.end_tokens(asked)
    assert wrong == [] and "<|eom_id|>, <|eot_id|>" in compared


def test_an_eos_that_is_not_the_format_s_end_of_turn_fails(tmp_path: Path) -> None:
    asked = subject(tmp_path)
    other = IDS["<|end_of_text|>"]
    asked.headers = {"Q8_0": with_metadata(tmp_path, eos_token_id=other)}  # type: ignore[misc]
    assert file.end_tokens(asked)[1] == [f"Q8_0: eos_token_id is {other}, <|eot_id|> is {END}"]


def test_an_end_of_turn_that_llama_cpp_goes_on_after_fails(tmp_path: Path) -> None:
    asked = subject(tmp_path, FakeLlama(eog=["<|end_of_text|>", "<|eom_id|>"]))
    asked.headers = {"F16": with_metadata(tmp_path)}  # type: ignore[misc]
    assert file.end_tokens(asked)[1] == ["llama.cpp does not end on ['<|eot_id|>']"]


@pytest.mark.parametrize("name", ["token_embd.weight", "output.weight"])
def test_a_tensor_with_other_rows_than_tokens_is_named(tmp_path: Path, name: str) -> None:
    count = len(TOKENS)
    shapes = {"token_embd.weight": (64, count), "output.weight": (64, count)}
    asked = subject(tmp_path)
    asked.headers = {"F16": with_tensors(tmp_path, shapes)}  # type: ignore[misc]
    assert file.vocabulary(asked)[1] == []
    padded = shapes | {name: (64, count + 7)}
    asked.headers = {"F16": with_tensors(tmp_path, padded)}  # type: ignore[misc]
    assert file.vocabulary(asked)[1] == [f"F16: {count} tokens, {name} has {count + 7} rows"]


@pytest.mark.parametrize("trained", [(), ("lm_head",), ("lm_head", "embed_tokens")])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("apart", [True, False])
def test_output_is_to_be_there_exactly_where_the_trained_model_has_its_own(
    tmp_path: Path, trained: tuple[str, ...], tied: bool, apart: bool
) -> None:
    """`apart` is a checkpoint that holds an output unlike its embedding."""
    one = np.zeros((4, 4), np.float32)
    shard = tmp_path / "model.safetensors"
    head = {"lm_head.weight": one + 1} if apart else {}
    save_file({"model.embed_tokens.weight": one, **head}, shard)
    name = "base_model.model.model.{}.lora_A.weight"
    save_file({name.format(m): one for m in ("q_proj", *trained)}, _adapter(tmp_path))
    asked = subject(tmp_path)
    model = SimpleNamespace(config={"tie_word_embeddings": tied}, shards=lambda: [shard])
    known = SimpleNamespace(model=model, adapter=tmp_path)
    asked.run.trained = known  # type: ignore[misc, assignment]
    own = not tied or apart or len(trained) == 1
    for has in (True, False):
        shapes = {"token_embd.weight": (4, 4)} | ({"output.weight": (4, 4)} if has else {})
        asked.headers = {"F16": with_tensors(tmp_path, shapes)}  # type: ignore[misc]
        assert bool(file.tied_embeddings(asked)[1]) == (has != own)


def _adapter(tmp_path: Path) -> Path:
    return tmp_path / "adapter_model.safetensors"


def test_nan_in_a_float_tensor_is_named(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "model.gguf", FORMAT.jinja)
    asked = subject(tmp_path)
    asked.files = {"F16": path}
    compared, wrong = file.finite_weights(asked)
    assert wrong == [] and compared == "floats and scales of 20 tensors"
    tensor = next(t for t in read_gguf(path).tensors if t.name == "blk.1.attn_k.weight")
    data = bytearray(path.read_bytes())
    place = tensor.offset + tensor.bytes - 2
    data[place : place + 2] = np.float16(np.inf).tobytes()
    path.write_bytes(data)
    asked = subject(tmp_path)
    asked.files = {"F16": path}
    assert file.finite_weights(asked)[1] == ["F16: blk.1.attn_k.weight holds NaN or infinity"]


def test_not_finite_bf16_is_told_by_its_bits() -> None:
    good = np.array([0x0000, 0x3F80, 0xFF7F], np.uint16)
    assert file._finite(good)
    for bad in (0x7F80, 0xFF80, 0x7FC0):
        assert not file._finite(np.append(good, np.uint16(bad)))


@pytest.mark.parametrize("type", sorted(file._SCALES))
def test_a_scale_is_where_the_gguf_package_reads_it(type: str) -> None:
    size, places = file._SCALES[type]
    kind = GGMLQuantizationType[type]
    assert GGML_QUANT_SIZES[kind][1] == size
    for place in places:
        block = np.full((1, size), 17, np.uint8)
        assert np.isfinite(dequantize(block, kind)).all()
        block[0, place : place + 2] = np.frombuffer(np.float16(np.nan).tobytes(), np.uint8)
        assert np.isnan(dequantize(block, kind)).all()
