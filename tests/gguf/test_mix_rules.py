"""The types of a mix by themselves: what everybody has, overrides that cannot be, fallbacks."""

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecipeError
from pipeline.gguf.kernels import BLOCKS
from pipeline.gguf.mix import FILE_TYPES, Facts, Override, check_overrides, choose_types, fallbacks
from tests.gguf.headers import shapes_of


@pytest.mark.parametrize(
    ("layers", "hidden", "ffn", "heads", "more"),
    [
        (16, 2048, 8192, 32, {0, 1, 4, 7, 10, 13, 14, 15}),
        (28, 3072, 8192, 24, {0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27}),
    ],
)
def test_llama_3_2_in_q4_k_m_is_the_file_that_everybody_has(layers, hidden, ffn, heads, more):
    facts = Facts("llama", layers, heads, 8)
    types = choose_types("Q4_K_M", shapes_of(facts, hidden=hidden, ffn=ffn), facts)
    six = {f"blk.{n}.{name}.weight" for n in more for name in ("attn_v", "ffn_down")}
    assert {name for name, type in types.items() if type == "Q6_K"} == {*six, "token_embd.weight"}
    floats = {name for name, type in types.items() if type == "F32"}
    norms = {f"blk.{n}.{name}_norm.weight" for n in range(layers) for name in ("attn", "ffn")}
    assert floats == {*norms, "output_norm.weight", "rope_freqs.weight"}
    assert set(types.values()) == {"F32", "Q4_K", "Q6_K"}


@given(
    st.sampled_from(sorted(FILE_TYPES)),
    st.integers(1, 24),
    st.sampled_from([(8, 1), (8, 2), (4, 4)]),
    st.sampled_from([64, 96, 256, 320, 1000, 2048]),
    st.booleans(),
)
def test_every_row_fills_the_blocks_of_its_type(file_type, layers, heads, width, tied):
    facts = Facts("llama", layers, *heads)
    shapes = shapes_of(facts, tied=tied, hidden=width, ffn=width * 2)
    types = choose_types(file_type, shapes, facts)
    assert all(shape.columns % BLOCKS[types[shape.name]][0] == 0 for shape in shapes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ffn_down", "no tensor type override"),
        ("=q8_0", "no tensor type override"),
        ("ffn_down=q9_k", "no tensor type override"),
        ("ffn_(down=q6_k", "no regular expression"),
        ("ffn_++=q6_k", "in another way"),
        (r"(?P<a>ffn)=q6_k", "no regular expression"),
        (r"(?<!k)_norm=q6_k", "in another way"),
        (r"\affn=q6_k", "in another way"),
    ],
)
def test_an_override_that_cannot_be_meant_is_an_error(text, says):
    with pytest.raises(RecipeError, match=says):
        Override.parse(text)


def test_an_override_that_finds_no_tensor_is_an_error():
    facts = Facts("llama", 2, 4, 2)
    for pattern in ("ffn_dwon", "attn_norm", "rope_freqs"):
        with pytest.raises(RecipeError, match=pattern):
            choose_types("Q4_K_M", shapes_of(facts), facts, [Override.parse(f"{pattern}=q8_0")])


def test_overrides_where_nothing_is_quantized_are_an_error():
    some = [Override.parse("ffn_down=q8_0")]
    with pytest.raises(RecipeError, match="change nothing in F16, BF16"):
        check_overrides(["F16", "BF16"], some)
    check_overrides(["F16", "Q4_K_M"], some)
    check_overrides(["F32"], [])


@pytest.mark.parametrize(
    ("file_type", "sizes", "overrides", "count"),
    [
        ("Q4_K_M", (256, 512), (), 0),
        ("Q4_K_M", (256, 512), ("ffn_up=q8_0", "attn_v=f16"), 0),
        ("Q4_K_M", (256, 320), (), 2),
        ("Q4_K_M", (256, 320), ("ffn_down=q5_0",), 0),
        ("Q2_K", (96, 512), (), 13),
        ("Q8_0", (96, 512), (), 0),
        ("Q8_0", (96, 512), ("attn_q=q6_k",), 2),
        ("Q8_0", (48, 512), (), 13),
        ("F16", (48, 512), (), 0),
    ],
)
def test_matrices_whose_columns_do_not_fill_the_blocks_are_counted(
    file_type, sizes, overrides, count
):
    facts = Facts("llama", 2, 2, 1)
    shapes = shapes_of(facts, hidden=sizes[0], ffn=sizes[1])
    wanted = [Override.parse(text) for text in overrides]
    types = choose_types(file_type, shapes, facts, wanted)
    assert fallbacks(file_type, shapes, types, wanted) == count


def test_an_unknown_file_type_names_those_there_are():
    with pytest.raises(RecipeError, match="Q4_K_M"):
        choose_types("Q4_K_L", [], Facts("llama", 2, 4, 2))


def test_the_numbers_are_those_of_llama_h():
    assert {
        name: gguf.LlamaFileType[f"{'ALL' if name == 'F32' else 'MOSTLY'}_{name}"]
        for name in FILE_TYPES
    } == FILE_TYPES
