"""A GGUF header is read in Python first: torn and lying files never reach native code."""

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.engines.gguf_file import different_tensors, read_gguf
from pipeline.errors import PipeError
from tests.support.tiny_gguf import finished


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_name("ä small one")
    writer.add_token_list(["a", "b"])
    writer.add_token_types([1, 3])
    writer.add_rope_freq_base(5.0)
    writer.add_tensor("token_embd.weight", np.ones((2, 32), dtype=np.float16))
    writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
    return finished(writer, path)


def test_reads_what_the_gguf_package_wrote(whole: Path) -> None:
    file = read_gguf(whole)
    assert file.metadata["general.name"] == "ä small one"
    assert file.metadata["tokenizer.ggml.tokens"] == ["a", "b"]
    assert file.metadata["tokenizer.ggml.token_type"] == [1, 3]
    assert file.metadata["llama.rope.freq_base"] == 5.0
    shapes = {t.name: (t.shape, t.type, t.bytes) for t in file.tensors}
    assert shapes == {
        "token_embd.weight": ((32, 2), "F16", 128),
        "output_norm.weight": ((32,), "F32", 128),
    }
    embedding = file.tensors[0]
    stored = whole.read_bytes()[embedding.offset : embedding.offset + embedding.bytes]
    assert stored == np.ones(64, np.float16).tobytes()


def test_a_file_torn_anywhere_is_refused(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    last = max(t.offset + t.bytes for t in read_gguf(whole).tensors)
    torn = tmp_path / "torn.gguf"
    for size in range(0, last, 7):
        torn.write_bytes(data[:size])
        with pytest.raises(PipeError, match="not a whole GGUF"):
            read_gguf(torn)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_a_damaged_header_is_read_or_refused_never_a_crash(
    whole: Path, tmp_path: Path, position: int, noise: bytes
) -> None:
    data = bytearray(whole.read_bytes())
    data[position : position + len(noise)] = noise
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(data)
    with contextlib.suppress(PipeError):
        read_gguf(damaged)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"PK\x03\x04 a zip",
        b"GGUF" + struct.pack("<I", 9) + bytes(16),
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 63, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40),
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<I", 9)
        + struct.pack("<IQ", 9, 1) * 100_000,
    ],
)  # fmt: skip
def test_foreign_and_lying_files_are_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(text)
    with pytest.raises(PipeError, match="not a whole GGUF"):
        read_gguf(path)


def test_a_torn_file_may_have_a_hint_of_its_own(whole: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(whole.read_bytes()[:40])
    with pytest.raises(PipeError) as caught:
        read_gguf(torn, "Collect it again.")
    assert caught.value.hint == "Collect it again."


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(PipeError, match="There is no file"):
        read_gguf(tmp_path / "none.gguf")


def two_files(tmp_path: Path, *tensors: dict[str, np.ndarray]) -> list[Path]:
    paths = []
    for number, arrays in enumerate(tensors):
        path = tmp_path / f"{number}.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_name(f"file {number}")
        for name, array in arrays.items():
            writer.add_tensor(name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths


def test_tensors_are_the_same_whatever_their_order_and_the_metadata(tmp_path: Path) -> None:
    arrays = {name: np.full(64, number, np.float32) for number, name in enumerate("abc")}
    one, other = two_files(tmp_path, arrays, dict(reversed(arrays.items())))
    assert different_tensors(one, other) == []


def test_tensors_that_differ_in_anything_are_named(tmp_path: Path) -> None:
    zeros = np.zeros((4, 32), np.float32)
    last = zeros.copy()
    last[-1, -1] = np.float32(1e-45)
    ours = {"alike": zeros, "ours": zeros, "shape": zeros, "type": zeros, "bytes": zeros}
    theirs = {
        **{"alike": zeros, "theirs": zeros, "shape": zeros.reshape(8, 16)},
        **{"type": np.zeros((4, 32), np.float16), "bytes": last},
    }
    one, other = two_files(tmp_path, ours, theirs)
    expected = ["bytes", "ours", "shape", "theirs", "type"]
    assert different_tensors(one, other) == different_tensors(other, one) == expected


def test_a_difference_is_found_in_any_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engines.gguf_file._BLOCK", 48)
    for place in range(0, 64, 7):
        changed = np.zeros(64, np.float32)
        changed[place] = 1
        one, other = two_files(tmp_path, {"w": np.zeros(64, np.float32)}, {"w": changed})
        assert different_tensors(one, other) == ["w"]
