"""Errors of a file's matrices, by the checkpoint's names and in its order of rows."""

from pathlib import Path

import pytest

from pipeline.base import Base, open_base
from pipeline.chat import chat_format
from pipeline.gguf.export import write_types
from pipeline.gguf.job import Job
from pipeline.recipe.schema import Export, Model
from pipeline.run import silent
from pipeline.study.quant.held import held_in_file
from tests.support.full import write_model

BASE = open_base(Model(base="builtin:tiny-llama"))
TYPES = ("BF16", "Q8_0", "Q4_K_M")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("files")
    format = chat_format("llama3.2-reasoning")
    job = Job("tiny", BASE, None, format, Export(quantize=TYPES), license="none")
    return {type: out / name for type, name in write_types(job, out, silent).files.items()}


def test_sixteen_bits_have_no_error_and_sixteen_bits_a_weight(files: dict[str, Path]) -> None:
    held = held_in_file(files["BF16"], BASE)
    assert set(held.errors.values()) == {0.0}
    # its vectors are in 32 bits
    assert held.bits_per_weight == pytest.approx(16, abs=0.1)
    assert held.bits_per_quantized_weight == 16


def test_every_matrix_has_its_name_in_the_checkpoint_and_less_error_the_more_bits(
    files: dict[str, Path],
) -> None:
    eight, four = (held_in_file(files[type], BASE).errors for type in ("Q8_0", "Q4_K_M"))
    layers = range(BASE.config["num_hidden_layers"])
    kinds = ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj")
    expected = {f"model.layers.{layer}.{kind}.weight" for layer in layers for kind in kinds}
    assert expected | {"model.embed_tokens.weight"} < set(eight)
    # a q or k in another order of rows would be off by about 1.4
    assert all(0.001 < eight[name] < 0.01 < four[name] < 0.12 for name in expected)


def test_eight_bits_and_a_scale_for_32_are_eight_and_a_half(files: dict[str, Path]) -> None:
    held = held_in_file(files["Q8_0"], BASE)
    assert held.bits_per_quantized_weight == 8.5
    assert held.bytes < files["Q8_0"].stat().st_size


def test_the_error_is_against_the_model_that_is_given(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """Each weight is a hundredth off: so is each matrix."""
    other: Base = write_model(BASE, tmp_path / "other")
    errors = held_in_file(files["BF16"], other).errors
    assert all(error == pytest.approx(0.01, rel=0.1) for error in errors.values())
