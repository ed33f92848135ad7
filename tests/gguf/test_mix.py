"""The type of every tensor, against llama_model_quantize itself on files without weights."""

import ctypes
import re
from contextlib import contextmanager

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RecipeError
from pipeline.gguf.kernels import BLOCKS
from pipeline.gguf.mix import (
    FILE_TYPES,
    Facts,
    Override,
    Shape,
    check_overrides,
    choose_types,
    fallbacks,
)

HIDDEN, FFN, VOCAB = 256, 512, 64


def shapes_of(facts, *, tied=True, hidden=HIDDEN, ffn=FFN, stored="F16"):
    """What the architecture's 16-bit file holds."""
    keys = hidden // facts.heads * facts.kv_heads
    sizes = {
        "attn_norm": (1, hidden),
        "attn_q": (hidden, hidden),
        "attn_k": (keys, hidden),
        "attn_v": (keys, hidden),
        "attn_output": (hidden, hidden),
        "ffn_norm": (1, hidden),
        "ffn_gate": (ffn, hidden),
        "ffn_up": (ffn, hidden),
        "ffn_down": (hidden, ffn),
    }
    names = {f"{name}.weight": size for name, size in sizes.items()}
    if facts.architecture == "qwen2":
        names |= {f"attn_{k}.bias": (1, sizes[f"attn_{k}"][0]) for k in "qkv"}
    if facts.architecture == "qwen3":
        names |= {f"attn_{k}_norm.weight": (1, hidden // facts.heads) for k in "qk"}
    whole = {"token_embd.weight": (VOCAB, hidden), "output_norm.weight": (1, hidden)}
    if not tied:
        whole["output.weight"] = (VOCAB, hidden)
    if facts.architecture == "llama":
        whole["rope_freqs.weight"] = (1, 32)
    for layer in range(facts.layers):
        whole |= {f"blk.{layer}.{name}": size for name, size in names.items()}
    return [
        Shape(name, rows, columns, "F32" if rows == 1 else stored)
        for name, (rows, columns) in whole.items()
    ]


def write_header(path, facts, shapes):
    """A GGUF file whose weights are a hole: a dry run reads none."""
    writer = gguf.GGUFWriter(path, facts.architecture)
    writer.add_block_count(facts.layers)
    writer.add_context_length(128)
    writer.add_embedding_length(shapes[0].columns)
    writer.add_feed_forward_length(512)
    writer.add_head_count(facts.heads)
    writer.add_head_count_kv(facts.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    weights = 0
    for shape in shapes:
        kind = gguf.GGMLQuantizationType[shape.stored]
        size = shape.rows * shape.columns * gguf.GGML_QUANT_SIZES[kind][1]
        dimensions = (shape.rows, shape.columns) if shape.rows > 1 else (shape.columns,)
        writer.add_tensor_info(shape.name, dimensions, None, size, raw_dtype=kind)
        weights += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        header = -(-path.stat().st_size // 32) * 32
        file.truncate(header + weights)
    return path


@contextmanager
def llama_log():
    """What llama.cpp says, as one string in a list."""
    import llama_cpp
    from llama_cpp._logger import llama_log_callback

    said = []

    @llama_cpp.llama_log_callback
    def keep(_, text, __):
        said.append(text.decode())

    llama_cpp.llama_log_set(keep, None)
    try:
        yield said
    finally:
        llama_cpp.llama_log_set(llama_log_callback, None)


def llama_types(path, file_type, overrides=(), importance=False):
    """Tensor name -> type that llama_model_quantize's dry run names."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.dry_run, params.nthread = FILE_TYPES[file_type], True, 1
    patterns = (llama_cpp.llama_model_tensor_override * (len(overrides) + 1))()
    for place, override in zip(patterns, overrides, strict=False):
        place.pattern = override.pattern.encode()
        place.type = gguf.GGMLQuantizationType[override.type]
    if overrides:
        params.tt_overrides = patterns
    values = (ctypes.c_float * HIDDEN)(*[1.0] * HIDDEN)
    entries = (llama_cpp.llama_model_imatrix_data * 2)()
    if importance:
        entries[0].name, entries[0].data, entries[0].size = b"blk.0.attn_q.weight", values, HIDDEN
        params.imatrix = entries
    with llama_log() as said:
        status = llama_cpp.llama_model_quantize(str(path).encode(), b"", ctypes.byref(params))
    assert status == 0, "".join(said)
    return dict(_chosen("".join(said)))


def _chosen(log):
    for line in re.findall(r"^\[ *\d+/ *\d+\].*", log, re.M):
        name, before = re.search(r"\] (\S+) +- \[.*type = +(\w+)", line).groups()
        after = re.search(r"-> .*\((\w+)\)$", line)
        yield name, (after[1] if after else before).upper()


def differing(path, file_type, facts, shapes, overrides=(), importance=False):
    """What the two choose differently."""
    ours = choose_types(file_type, shapes, facts, overrides)
    theirs = llama_types(path, file_type, overrides, importance)
    assert list(ours) == [shape.name for shape in shapes]
    return {
        name: (ours.get(name), theirs.get(name))
        for name in ours | theirs
        if ours.get(name) != theirs.get(name)
    }


MODELS = {
    "llama of few layers": (Facts("llama", 3, 8, 2), {}),
    "llama 1B's heads": (Facts("llama", 16, 4, 1), {}),
    "llama 3B's layers": (Facts("llama", 28, 2, 1), {"stored": "BF16"}),
    "llama untied": (Facts("llama", 9, 8, 2), {"tied": False}),
    "llama of one head a key": (Facts("llama", 4, 4, 4), {"stored": "F32"}),
    "llama of 70B's layers": (Facts("llama", 80, 8, 1), {"tied": False}),
    "llama of 65B's layers": (Facts("llama", 80, 4, 4), {}),
    "qwen2 of 72B's layers": (Facts("qwen2", 80, 4, 4), {}),
    "qwen3 of 80 layers": (Facts("qwen3", 80, 8, 1), {}),
    "qwen2 untied": (Facts("qwen2", 24, 4, 2), {"tied": False}),
    "qwen3": (Facts("qwen3", 36, 4, 1), {"ffn": 768}),
    "blocks of 32 only": (Facts("llama", 5, 2, 1), {"hidden": 64, "ffn": 96}),
    "no blocks at all": (Facts("llama", 5, 2, 1), {"hidden": 48, "ffn": 1000, "tied": False}),
    "odd feed-forward": (Facts("qwen2", 10, 4, 2), {"ffn": 320}),
}
OVERRIDES = {
    "none": (),
    "a middle layer's values, which are then not counted": (r"blk\.[12]\.attn_v=q8_0",),
    "the first that applies": ("attn_v=q4_k", "attn=q5_k", "attn_v=q2_k", "ffn_down=Q3_K"),
    "the embedding and what floats": ("token_embd=bf16", r"blk\.\d\.ffn_(up|gate)=F32"),
    "types whose blocks may not fit": ("ffn=q5_1", "weight=q6_K"),
}


@pytest.mark.parametrize("model", MODELS)
def test_every_tensor_gets_the_type_that_llama_quantize_gives_it(model, tmp_path):
    facts, options = MODELS[model]
    shapes = shapes_of(facts, **options)
    path = write_header(tmp_path / "model.gguf", facts, shapes)
    for file_type in FILE_TYPES:
        assert differing(path, file_type, facts, shapes) == {}, file_type


@pytest.mark.parametrize("case", OVERRIDES)
def test_overrides_take_the_tensors_that_llama_quantize_lets_them_take(case, tmp_path):
    overrides = [Override.parse(text) for text in OVERRIDES[case]]
    for hidden in (256, 96):
        facts = Facts("llama", 12, 4, 2)
        shapes = shapes_of(facts, hidden=hidden)
        path = write_header(tmp_path / f"{hidden}.gguf", facts, shapes)
        for file_type in ("Q4_K_M", "Q4_K_S", "Q3_K_M", "Q8_0", "F16"):
            assert differing(path, file_type, facts, shapes, overrides) == {}, file_type


def test_an_importance_matrix_changes_no_type(tmp_path):
    facts = Facts("llama", 8, 8, 1)
    shapes = shapes_of(facts)
    path = write_header(tmp_path / "model.gguf", facts, shapes)
    for file_type in FILE_TYPES:
        assert differing(path, file_type, facts, shapes, importance=True) == {}, file_type


def test_the_order_of_the_tensors_changes_nothing(tmp_path):
    facts = Facts("llama", 12, 4, 2)
    shapes = shapes_of(facts)
    path = write_header(tmp_path / "model.gguf", facts, shapes[::-1])
    assert differing(path, "Q4_K_M", facts, shapes[::-1]) == {}
    assert choose_types("Q4_K_M", shapes[::-1], facts) == choose_types("Q4_K_M", shapes, facts)


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
