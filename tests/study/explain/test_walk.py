"""A row of a real base through every method: as the whole matrix would be quantized."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.base import Base, base_at
from pipeline.errors import PipeError
from pipeline.study.explain import numbers, superblock
from pipeline.study.explain.subject import choose
from pipeline.study.explain.walk import explained

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def tiny() -> Base:
    return base_at(Path(__file__).parents[3] / "data" / "tiny-llama")


def base_of(folder: Path, **tensors: np.ndarray) -> Base:
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return base_at(folder)


def by_method(found):
    return {each["method"]: each for each in found["methods"]}


def test_the_first_query_projection_is_taken_where_none_is_named(tiny):
    found = explained(choose(tiny, None, 2), 4)
    assert (found["tensor"], found["row"], found["dtype"]) == (Q_PROJ, 2, "BF16")
    assert len(found["weights"]) == 4 and found["shape"] == [256, 256]


@pytest.mark.parametrize("row", [0, 3, 6])
@pytest.mark.parametrize("columns", [256, 96, 50])
def test_a_row_gets_what_it_gets_in_the_whole_matrix(tmp_path, row, columns):
    """Also where a block reaches into the next row, or the last one is short."""
    weights = np.random.default_rng(0).normal(0, 1, (7, columns)).astype(np.float32)
    base = base_of(tmp_path, **{"w": weights})
    methods = by_method(explained(choose(base, "w", row), columns))
    for name, method in numbers.METHODS.items():
        whole = method(weights)
        assert methods[name]["codes"] == whole.codes[row].tolist(), name
        np.testing.assert_array_equal(
            np.float32(methods[name]["restored"]), whole.restored[row], name
        )


def by_rule(method, codes, levels, scale):
    """Each method's printed rule, with the printed scales."""
    match method:
        case "int8-absmax":
            return codes * scale["scale"]
        case "int8-zero-point":
            return (codes - scale["zero"]) * scale["scale"]
        case "nf4" | "fp4":
            return levels * scale["absmax"]
        case "nf4-double":
            return levels * (scale["level of 256"] * scale["absmax of 256 scales"] + scale["mean"])
        case "q4_k":
            lowest = scale["minimum of 256"] * scale["offset of 32"]
            return scale["scale of 256"] * scale["step of 32"] * codes - lowest


def test_codes_and_scales_give_the_weights_back_by_the_rule_that_is_printed(tiny):
    found = explained(choose(tiny, None, 0), 32)
    for name, each in by_method(found).items():
        scale = {entry["name"]: entry["value"] for entry in each["scales"]}
        codes, levels = (np.array(each[key] or 0, float) for key in ("codes", "levels"))
        back = by_rule(name, codes, levels, scale)
        np.testing.assert_allclose(back, each["restored"], rtol=1e-5, atol=1e-8, err_msg=name)
        off = np.array(each["restored"]) - np.array(found["weights"])
        np.testing.assert_allclose(off, each["errors"], atol=1e-8, err_msg=name)


def test_rounding_what_was_scaled_gives_the_code(tiny):
    methods = by_method(explained(choose(tiny, None, 5), 256))
    for name in ("int8-absmax", "int8-zero-point"):
        each = methods[name]
        assert np.abs(np.array(each["scaled"]) - each["codes"]).max() <= 0.501
    for name in ("nf4", "fp4"):
        scaled, levels = (np.array(methods[name][key]) for key in ("scaled", "levels"))
        table = numbers.NF4_LEVELS if name == "nf4" else numbers.FP4_LEVELS
        nearest = np.abs(scaled[:, None] - table[None, :]).min(axis=1)
        np.testing.assert_allclose(np.abs(scaled - levels), nearest, atol=1e-6)


def test_every_weight_of_the_row_is_counted_on_one_level(tiny):
    for name in ("nf4", "nf4-double", "fp4"):
        used = by_method(explained(choose(tiny, None, 0), 1))[name]["used"]
        assert sum(each["weights"] for each in used) == 256
        assert [each["level"] for each in used] == sorted(each["level"] for each in used)


def test_a_super_block_taken_apart_is_what_gguf_reads(tiny):
    subject = choose(tiny, "model.layers.0.mlp.down_proj.weight", 1)
    found = superblock.taken_apart(subject.weights)
    np.testing.assert_array_equal(found.restored(), superblock.in_type("Q4_K", subject.weights))
    assert found.steps.max() < 64 and found.offsets.max() < 64 and found.codes.max() < 16


def test_more_bits_of_the_same_kind_err_less(tiny):
    types = {each["type"]: each for each in explained(choose(tiny, None, 0), 1)["gguf"]}
    errors = [types[name]["rms_error"] for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")]
    assert errors == sorted(errors, reverse=True)
    assert [types[name]["bits"] for name in ("Q4_K", "Q6_K", "Q8_0")] == [4.5, 6.5625, 8.5]


def test_a_row_that_fills_no_blocks_says_so(tmp_path):
    weights = np.ones((2, 50), np.float32)
    found = explained(choose(base_of(tmp_path, w=weights), None, 0), 8)
    assert "q4_k" not in by_method(found)
    assert all("do not fill" in each["reason"] for each in found["gguf"])


def test_equal_rows_give_equal_data(tiny):
    made = [json.dumps(explained(choose(tiny, None, 1), 8)) for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("tensor", "row", "message", "hint"),
    [
        ("model.layers.0.self_attn.qproj.weight", 0, "no tensor", Q_PROJ),
        ("model.norm.weight", 0, "is no matrix", "Name a matrix"),
        (None, 256, "no row 256", "0 to 255"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(tiny, tensor, row, message, hint):
    with pytest.raises(PipeError, match=message) as raised:
        choose(tiny, tensor, row)
    assert hint in raised.value.hint


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    base = base_of(tmp_path, w=np.full((2, 64), np.nan, np.float32))
    with pytest.raises(PipeError, match="no finite numbers"):
        choose(base, None, 0)


def test_a_base_without_a_matrix_is_refused(tmp_path):
    with pytest.raises(PipeError, match="holds no matrix"):
        choose(base_of(tmp_path, w=np.zeros(4, np.float32)), None, 0)
