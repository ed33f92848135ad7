"""A file takes its name only when every byte came back from the disk."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.engines.gguf_file import read_gguf
from pipeline.errors import PipeError
from pipeline.gguf.header import Metadata
from pipeline.gguf.merged import Slab, Weight
from pipeline.gguf.output import Output, finish

WEIGHTS = [Weight("norm", "a", (32,)), Weight("big", "b", (6, 64))]
TYPES = {"norm": "F32", "big": "Q8_0"}
NORM, BIG = bytes(range(128)), bytes(i % 251 for i in range(6 * 68))


def opened(folder: Path) -> Output:
    metadata = Metadata.of("llama", lambda writer: writer.add_name("x"))
    return Output(folder / "model.gguf", metadata, WEIGHTS, TYPES)


def fill(output: Output) -> None:
    """The slabs in an order that no thread promises."""
    output.write(Slab(WEIGHTS[1], 4, 6), BIG[4 * 68 :])
    output.write(Slab(WEIGHTS[0], 0, 1), NORM)
    output.write(Slab(WEIGHTS[1], 0, 4), BIG[: 4 * 68])


def test_slabs_in_any_order_make_the_file(tmp_path: Path) -> None:
    with opened(tmp_path) as output:
        fill(output)
        assert not output.path.exists()
        finish([output])
    (path,) = tmp_path.iterdir()
    data, tensors = path.read_bytes(), {t.name: t for t in read_gguf(path).tensors}
    assert len(data) == output.bytes
    for name, expected in (("norm", NORM), ("big", BIG)):
        begin = tensors[name].offset
        assert data[begin : begin + len(expected)] == expected


def test_a_byte_that_the_disk_changed_is_found(tmp_path: Path) -> None:
    with opened(tmp_path) as output:
        fill(output)
        (part,) = tmp_path.iterdir()
        with part.open("r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"!")
        with pytest.raises(PipeError, match=r"model\.gguf reads back differently at byte"):
            finish([output])
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), opened(tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"), opened(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:50], at))
    with opened(tmp_path) as output:
        fill(output)
        finish([output])
    assert NORM in output.path.read_bytes() and np.uint8(BIG[-1]) == output.path.read_bytes()[-1]
