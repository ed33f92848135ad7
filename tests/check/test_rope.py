"""The rope gate, on files with the factors that a base asks for, and with others."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.check import rope
from pipeline.check.subject import Subject
from pipeline.engines.gguf_file import read_gguf
from tests.check.fakes import subject

SCALING = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SHAPE = {"num_attention_heads": 32, "hidden_size": 2048, "max_position_embeddings": 131072}
OLD = {**SHAPE, "rope_theta": 500000.0, "rope_scaling": SCALING}
"""config.json of Llama 3.2 1B, as Transformers 4 wrote it."""
NEW = {**SHAPE, "rope_parameters": {**SCALING, "rope_theta": 500000.0}}


def llama_cpp(factor: float) -> NDArray[np.float32]:
    """LlamaModel.generate_extra_tensors of llama.cpp's conversion/llama.py, in its own loop."""
    found = []
    for exponent in np.arange(0, 64, 2) / 64:
        wavelength = 2 * np.pi * 500000.0**exponent
        if wavelength < 8192 / 4:
            found.append(1.0)
        elif wavelength > 8192 / 1:
            found.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, np.float32)


def asked(tmp_path: Path, config: dict[str, Any], values: NDArray[np.float32] | None) -> Subject:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("output_norm.weight", np.ones(8, np.float32))
    if values is not None:
        writer.add_tensor("rope_freqs.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    made = subject(tmp_path)
    made.run.base = type("Base", (), {"config": config})  # type: ignore[misc, assignment]
    made.headers = {"Q8_0": read_gguf(path)}  # type: ignore[misc]
    return made


@pytest.mark.parametrize("config", [OLD, NEW, {**OLD, "head_dim": 64, "hidden_size": 1024}])
def test_the_factors_that_the_base_asks_for_pass(tmp_path: Path, config: dict[str, Any]) -> None:
    compared, wrong = rope.rope_frequencies(asked(tmp_path, config, llama_cpp(32)))
    assert (compared, wrong) == ("rope_freqs.weight; the base asks for 32 factors", [])


def test_no_factors_pass_where_none_are_asked_for(tmp_path: Path) -> None:
    assert rope.rope_frequencies(asked(tmp_path, SHAPE, None))[1] == []


@pytest.mark.parametrize(
    ("config", "values", "said"),
    [
        (OLD, None, "is missing"),
        (SHAPE, llama_cpp(32), "is there"),
        (OLD, llama_cpp(8), "not "),
        (OLD, llama_cpp(32)[::2].copy(), "has 16 factors, not 32"),
        (OLD, np.full(32, np.nan, np.float32), "has nan at 0, not 1"),
    ],
    ids=["missing", "not asked for", "Llama 3.1's factor", "too few", "NaN"],
)
def test_other_factors_fail(
    tmp_path: Path, config: dict[str, Any], values: NDArray[np.float32] | None, said: str
) -> None:
    _, wrong = rope.rope_frequencies(asked(tmp_path, config, values))
    assert len(wrong) == 1 and wrong[0].startswith("Q8_0: rope_freqs.weight") and said in wrong[0]
