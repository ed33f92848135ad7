"""Safetensors: every value exactly, every torn or lying file refused before it is used."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pipeline.errors import PipeError
from pipeline.gguf.weights import Checkpoint

TWO = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
}


def write(path: Path, header: Any, data: int | bytes = 32) -> Path:
    """A shard with this header, as JSON or verbatim, and this data or so many zeros."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = data if isinstance(data, bytes) else bytes(data)
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)
    return path


def changed(name: str, **entry: Any) -> dict[str, Any]:
    return TWO | {name: TWO[name] | entry}


def test_values_are_read_exactly_by_slices_and_by_row_numbers(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    words: npt.NDArray[np.uint16] = random.integers(0, 1 << 16, (5, 3), np.uint16)
    header = {"x": {"dtype": "BF16", "shape": [5, 3], "data_offsets": [0, 30]}}
    bf16 = Checkpoint([write(tmp_path / "bf16", header, words.tobytes())]).read("x")
    assert bf16.dtype == "BF16" and np.array_equal(bf16.rows(slice(1, 3)), words[1:3])
    picked = np.array([4, 0, 4])
    assert np.array_equal(bf16.rows(picked), words[picked])
    expected = (words.astype(np.uint32) << 16)[picked]
    assert np.array_equal(bf16.float32(picked).view(np.uint32), expected)
    for dtype in (np.float16, np.float32):
        values = random.standard_normal((5, 3)).astype(dtype)
        save_file({"x": values}, tmp_path / "x")
        stored = Checkpoint([tmp_path / "x"]).read("x")
        assert stored.float32(picked).dtype == np.float32
        assert np.array_equal(stored.float32(picked), values[picked].astype(np.float32))


def test_what_is_read_cannot_be_written_and_fp32_copies_can(tmp_path: Path) -> None:
    save_file({"x": np.ones((2, 2), np.float32)}, tmp_path / "x")
    stored = Checkpoint([tmp_path / "x"]).read("x")
    assert not stored.bits.flags.writeable
    for index in (slice(None), np.array([1])):
        assert stored.float32(index).flags.writeable
    assert stored.transposed().float32().flags.c_contiguous


def test_shards_make_one_checkpoint(tmp_path: Path) -> None:
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "1")
    save_file({"b": np.zeros((3, 1), np.float16)}, tmp_path / "2")
    both = Checkpoint([tmp_path / "1", tmp_path / "2"])
    assert list(both) == ["a", "b"] and "b" in both and "c" not in both
    assert both.shape("b") == (3, 1) and both.dtype("b") == "F16"
    with pytest.raises(PipeError, match="lack the tensor c"):
        both.read("c")


def test_a_name_in_two_shards_is_refused(tmp_path: Path) -> None:
    for shard in "12":
        save_file({"a": np.ones(2, np.float32)}, tmp_path / shard)
    with pytest.raises(PipeError, match=r"1 and .*2 both hold the tensor a"):
        Checkpoint([tmp_path / "1", tmp_path / "2"])


@pytest.mark.parametrize("kept", [0, 7, 8, 60, -33, -20, -1])
def test_a_torn_shard_is_refused(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "x", TWO)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(PipeError, match="not a whole safetensors file"):
        Checkpoint([path])


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"no json", "Expecting value"),
        (b"[]", "no object"),
        (b'{"a": {}, "a": {}}', "names a tensor twice"),
        (b"[" * 100_000, "recursion"),
        (b"\xff\xfe\xff", "codec"),
        ({"a": 3}, "a is no tensor"),
        (changed("a", dtype=4), "a is not described"),
        (changed("a", shape="6"), "a is not described"),
        (changed("a", shape=[True, 6]), "a is not described"),
        (changed("a", shape=[-2, -3]), "a is not described"),
        (changed("a", shape=[1 << 63, 0]), "a is not described"),
        (changed("a", shape=[1] * 9), "a is described wrongly"),
        (changed("a", data_offsets=[0]), "a is described wrongly"),
        (changed("a", data_offsets=[24, 0]), "a is described wrongly"),
        (changed("a", shape=[2, 4]), r"a of shape \[2, 4\] has 24 bytes of F32"),
        (changed("a", dtype="F16"), "a of shape .* has 24 bytes of F16"),
        (changed("b", data_offsets=[28, 36]), "b ends beyond the file"),
        (changed("b", data_offsets=[16, 24]), "b does not begin where the one before"),
        ({"a": TWO["a"]}, "8 bytes after the last tensor"),
        (
            {"a": TWO["a"], "b": {"dtype": "F16", "shape": [3], "data_offsets": [26, 32]}},
            "b does not begin where the one before it ends",
        ),
    ],
)
def test_a_lying_header_is_refused(tmp_path: Path, header: Any, said: str) -> None:
    with pytest.raises(PipeError, match=f"not a whole safetensors file: .*{said}"):
        Checkpoint([write(tmp_path / "x", header)])


def test_a_header_longer_than_the_format_allows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(200_000_000)
    with pytest.raises(PipeError, match="longer than the file or the format allows"):
        Checkpoint([path])


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipeError, match="No such file"):
        Checkpoint([tmp_path / "x"])


@given(
    st.lists(st.tuples(st.integers(0, 160), st.sampled_from(b'0123456789{}[],:" \\')), max_size=2),
    st.integers(0, 200),
)
def test_a_file_that_safetensors_refuses_is_refused(
    tmp_path_factory: pytest.TempPathFactory, swaps: list[tuple[int, int]], length: int
) -> None:
    """And nothing but a PipeError comes of any bytes; unknown types are refused when read."""
    path = write(tmp_path_factory.mktemp("noise") / "x", TWO)
    noisy = bytearray(path.read_bytes())
    for at, byte in swaps:
        noisy[at] = byte
    path.write_bytes(noisy[: length if length < 100 else None])
    theirs = keys(lambda: safe_open(path, "numpy").keys(), SafetensorError)
    ours = keys(lambda: known(Checkpoint([path])), PipeError)
    assert ours is None or ours == theirs


def known(shard: Checkpoint) -> list[str]:
    for name in shard:
        shard.read(name)
    return list(shard)


def keys(read: Callable[[], list[str]], error: type[Exception]) -> set[str] | None:
    try:
        return set(read())
    except error:
        return None


@pytest.mark.parametrize("dtype", ["I64", "U8", "F8_E4M3", "F4"])
def test_another_type_is_refused_by_name_when_read(tmp_path: Path, dtype: str) -> None:
    size = {"I64": 8, "U8": 1, "F8_E4M3": 1, "F4": 1}[dtype]
    header = {"x": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4 * size]}}
    shard = Checkpoint([write(tmp_path / "x", header, 4 * size)])
    assert shard.shape("x") == (4,)
    for ask in (shard.read, shard.dtype):
        with pytest.raises(PipeError, match=f"Tensor x of .* is {dtype}"):
            ask("x")


def test_a_tensor_at_an_odd_byte_is_copied_aligned_only_by_the_rows_asked_for(
    tmp_path: Path,
) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    header = {"x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    text = json.dumps(header).encode()
    path = write(tmp_path / "x", text + b" " * (8 - len(text) % 8 + 3), values.tobytes())
    shard = Checkpoint([path])
    stored = shard.read("x")
    assert np.shares_memory(stored.bits, shard.read("x").bits)
    for index in (slice(1, 2), slice(None), np.array([1, 0])):
        for found in (stored.rows(index), stored.float32(index)):
            assert found.flags.aligned and np.array_equal(found, values[index])
    turned = stored.transposed()
    assert turned.rows(slice(0, 2)).flags.aligned
    assert np.array_equal(turned.float32(), values.T) and stored.finite() and stored.any()


def test_advice_takes_any_rows_and_changes_nothing(tmp_path: Path) -> None:
    values = np.arange(40_000, dtype=np.float32).reshape(100, 400)
    save_file({"e": np.zeros((0, 4), np.float32), "x": values}, tmp_path / "x")
    shard = Checkpoint([tmp_path / "x"])
    for start, stop in ((0, 0), (0, 100), (99, 100), (3, 7), (90, 200), (100, 101)):
        shard.will_need("x", start, stop)
        shard.done_with("x", start, stop)
    shard.will_need("e", 0, 1)
    assert np.array_equal(shard.read("x").bits, values)


def test_what_is_done_with_leaves_the_memory(tmp_path: Path) -> None:
    def resident() -> int:
        fields = Path("/proc/self/status").read_text().split("RssFile:")[1]
        return int(fields.split()[0])

    save_file({"x": np.ones((4096, 4096), np.float16)}, tmp_path / "x")
    shard = Checkpoint([tmp_path / "x"])
    before = resident()
    assert shard.read("x").bits.sum(dtype=np.float64) == 4096 * 4096
    assert resident() > before + 30_000
    for start in range(0, 4096, 64):
        shard.done_with("x", start, start + 64)
    assert resident() < before + 2_000


def test_threads_may_read_at_once(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float16)
    save_file({"x": values}, tmp_path / "x")
    shard, failures = Checkpoint([tmp_path / "x"]), []

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(50):
            rows = random.integers(0, 300, 20)
            shard.will_need("x", int(rows.min()), int(rows.max()))
            if not np.array_equal(shard.read("x").rows(rows), values[rows]):
                failures.append(seed)
            shard.done_with("x", 0, 300)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
