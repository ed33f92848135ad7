"""The header packed here is the one that llama.cpp's own package writes, and that we read."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.gguf_file import read_gguf
from pipeline.gguf.header import ALIGNMENT, Metadata, header, place

TENSORS = [
    ("token_embd.weight", (40, 256), "Q4_K", 40 * 144),
    ("blk.0.attn_norm.weight", (256,), "F32", 1024),
    ("output.weight", (3, 32), "Q8_0", 3 * 34),
]


def fill(writer: Any) -> None:
    writer.add_name("Ünïcode")
    writer.add_license("")  # the package leaves out what is empty
    writer.add_block_count(3)
    writer.add_rope_freq_base(500000.0)
    writer.add_add_bos_token(True)
    writer.add_token_list(["a", "Ġb", "<|eot_id|>"])
    writer.add_token_types([1, 1, 3])
    writer.add_token_scores([0.5, -1.0, 0.0])
    writer.add_tags(["one"])


def test_it_equals_the_packages_own_bytes(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "theirs.gguf", "llama")
    fill(writer)
    for name, shape, type, size in TENSORS:
        kind = GGMLQuantizationType[type]
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    theirs = (tmp_path / "theirs.gguf").read_bytes()
    ours = header(Metadata.of("llama", fill), place(TENSORS))
    assert ours[: len(theirs)] == theirs
    assert len(ours) % ALIGNMENT == 0 and not any(ours[len(theirs) :])


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8) | st.booleans()))
def test_what_is_packed_is_read_back(tmp_path_factory: Any, values: dict[str, str | bool]) -> None:
    def some(writer: Any) -> None:
        for key, value in values.items():
            add = writer.add_bool if isinstance(value, bool) else writer.add_string
            add(f"x.{key}", value)

    data = header(Metadata.of("llama", some), place(TENSORS))
    path = tmp_path_factory.mktemp("header") / "file.gguf"
    path.write_bytes(data + bytes(sum(size + ALIGNMENT for *_, size in TENSORS)))
    read = read_gguf(path)
    kept = {f"x.{key}": value for key, value in values.items() if value != ""}
    assert read.metadata == {"general.architecture": "llama", **kept}
    assert [(t.name, t.shape[::-1], t.type, t.bytes) for t in read.tensors] == TENSORS
    assert all(tensor.offset % ALIGNMENT == 0 for tensor in read.tensors)
