"""The type of every tensor, against llama_model_quantize itself on files without weights."""

import ctypes
import re
from contextlib import contextmanager

import gguf
import pytest

from pipeline.gguf.mix import FILE_TYPES, Facts, Override, choose_types
from tests.gguf.headers import HIDDEN, shapes_of, write_header


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
