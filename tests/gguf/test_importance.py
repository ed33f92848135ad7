"""Importance matrices: what is read of a file, and what is refused."""

import numpy as np
import pytest

from pipeline.errors import PipeError
from pipeline.gguf.importance import Importance, read_importance
from pipeline.gguf.mix import Shape
from tests.gguf.matrices import NAME, SUMS, write_matrix


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
