"""What a file says about itself, key by key."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipeError
from pipeline.gguf.importance import Importance
from pipeline.gguf.models import (
    Description,
    License,
    Origin,
    describe,
    describe_adapter,
    name_parts,
    own_sampling,
    size_label,
)

BASE = "meta-llama/Llama-3.2-1B-Instruct"
WHOLE = Description(
    name="my-model",
    license=License.of("llama3.2"),
    size_label="1.2B",
    chat_template="{{ messages }}",
    base=Origin.of_model(BASE),
    datasets=[Origin.of_dataset("open-thoughts/OpenThoughts-114k"), Origin("own questions")],
    basename="Llama-3.2",
    finetune="Instruct",
    sampling={"temp": 0.6, "top_p": 0.95, "top_k": 20},
)


def keys(part: Callable[[GGUFWriter], None]) -> dict[str, Any]:
    """Key -> (type, value), as the gguf package would write them."""
    writer = GGUFWriter(None, "llama")
    part(writer)
    return {key: (value.type.name, value.value) for key, value in writer.kv_data[0].items()}


def test_a_whole_description_has_these_keys() -> None:
    assert keys(lambda writer: describe(writer, WHOLE, 15)) == {
        "general.architecture": ("STRING", "llama"),
        "general.type": ("STRING", "model"),
        "general.sampling.temp": ("FLOAT32", 0.6),
        "general.sampling.top_p": ("FLOAT32", 0.95),
        "general.sampling.top_k": ("INT32", 20),
        "general.name": ("STRING", "my-model"),
        "general.finetune": ("STRING", "Instruct"),
        "general.basename": ("STRING", "Llama-3.2"),
        "general.size_label": ("STRING", "1.2B"),
        "general.license": ("STRING", "llama3.2"),
        "general.license.name": ("STRING", "Llama 3.2 Community License Agreement"),
        "general.license.link": ("STRING", "https://www.llama.com/llama3_2/license/"),
        "general.base_model.count": ("UINT32", 1),
        "general.base_model.0.name": ("STRING", "Llama 3.2 1B Instruct"),
        "general.base_model.0.organization": ("STRING", "Meta Llama"),
        "general.base_model.0.repo_url": ("STRING", f"https://huggingface.co/{BASE}"),
        "general.dataset.count": ("UINT32", 2),
        "general.dataset.0.name": ("STRING", "OpenThoughts 114k"),
        "general.dataset.0.organization": ("STRING", "Open Thoughts"),
        "general.dataset.0.repo_url": (
            "STRING",
            "https://huggingface.co/datasets/open-thoughts/OpenThoughts-114k",
        ),
        "general.dataset.1.name": ("STRING", "own questions"),
        "tokenizer.chat_template": ("STRING", "{{ messages }}"),
        "general.file_type": ("UINT32", 15),
        "general.quantization_version": ("UINT32", 2),
    }


def test_what_is_not_known_is_left_out() -> None:
    bare = Description(name="m", license=License.of("mit"), size_label="8M")
    assert set(keys(lambda writer: describe(writer, bare, 32))) == {
        "general.architecture",
        "general.type",
        "general.name",
        "general.size_label",
        "general.license",
        "general.file_type",
        "general.quantization_version",
    }


def test_an_importance_matrix_is_recorded_as_llama_quantize_does() -> None:
    entries = {f"blk.{n}.attn_q.weight": np.ones(4, np.float32) for n in range(112)}
    matrix = Importance(Path("runs/importance.gguf"), entries, ("rows.txt",), 200, 512)
    found = keys(lambda writer: describe(writer, WHOLE, 15, matrix.metadata()))
    assert {key: value for key, value in found.items() if key.startswith("quantize")} == {
        "quantize.imatrix.file": ("STRING", "importance.gguf"),
        "quantize.imatrix.dataset": ("STRING", "rows.txt"),
        "quantize.imatrix.entries_count": ("UINT32", 112),
        "quantize.imatrix.chunks_count": ("UINT32", 200),
    }


def test_an_adapter_is_described_as_one() -> None:
    found = keys(lambda writer: describe_adapter(writer, WHOLE, 16.0))
    assert found["general.type"] == ("STRING", "adapter")
    assert found["adapter.type"] == ("STRING", "lora")
    assert found["adapter.lora.alpha"] == ("FLOAT32", 16.0)
    assert found["general.base_model.0.name"] == ("STRING", "Llama 3.2 1B Instruct")
    assert not {"general.file_type", "tokenizer.chat_template"} & found.keys()


def test_a_sampling_default_that_llama_cpp_does_not_know_is_an_error() -> None:
    with pytest.raises(PipeError, match="called temperature"):
        Description(name="m", license=License("MIT"), size_label="8M", sampling={"temperature": 1})


@pytest.mark.parametrize(
    ("parameters", "label"),
    [
        (1_235_814_400, "1.2B"),
        (3_212_749_824, "3.2B"),
        (494_032_768, "494M"),
        (8_030_261_248, "8.0B"),
        (70_553_706_496, "71B"),
        (1_000_000, "1000K"),
        (2_500_000, "2.5M"),
        (500, "0.50K"),
    ],
)
def test_sizes_are_labelled_as_llama_cpps_converter_labels_them(
    parameters: int, label: str
) -> None:
    assert size_label(parameters) == label


@given(st.integers(1, 10**13))
def test_a_size_label_is_within_a_tenth_of_the_size(parameters: int) -> None:
    label = size_label(parameters)
    size = float(label[:-1]) * 1000 ** " KMBT".index(label[-1])
    assert abs(size - parameters) <= max(0.1 * parameters, 50)


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("mit", License("MIT")),
        ("apache-2.0", License("Apache-2.0")),
        ("Apache-2.0", License("Apache-2.0")),
        ("cc-by-nc-sa-4.0", License("CC-BY-NC-SA-4.0")),
        ("openrail++", License("openrail++")),
        ("gemma", License("gemma")),
        ("MIT License\n\nCopyright (c) ...", License("MIT")),
        ("\n   Apache License\n   Version 2.0, January 2004\n", License("Apache-2.0")),
        ("A RESEARCH LICENSE\n\nRelease ...", License("other", "A RESEARCH LICENSE")),
        ("unknown: see the card", License("other", "unknown: see the card")),
        ("x" * 300, License("other", "x" * 80)),
        ("", License("unknown")),
    ],
)
def test_licences_are_recognised_by_id_or_title(text: str, license: License) -> None:
    assert License.of(text) == license


@pytest.mark.parametrize(
    ("text", "id", "link"),
    [
        ("llama3.2", "llama3.2", "https://www.llama.com/llama3_2/license/"),
        ("llama3", "llama3", "https://www.llama.com/llama3/license/"),
        (
            "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\nLlama 3.2 Version Release Date: ...",
            "llama3.2",
            "https://www.llama.com/llama3_2/license/",
        ),
    ],
)
def test_metas_licences_have_the_hubs_id_and_a_link(text: str, id: str, link: str) -> None:
    found = License.of(text)
    assert (found.id, found.link) == (id, link)


def test_names_of_bases_give_their_parts() -> None:
    assert name_parts(BASE) == ("Llama-3.2", "Instruct")
    assert name_parts("Qwen/Qwen3-0.6B") == ("Qwen3", None)
    assert name_parts("tiny") == (None, None)


def test_a_local_base_has_no_address() -> None:
    assert Origin.of_model("tiny-llama") == Origin("Tiny Llama")


def test_the_models_own_sampling_is_taken_by_llama_cpps_names(tmp_path: Path) -> None:
    assert own_sampling(tmp_path) == {}
    values = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.05}
    stated = {**values, "do_sample": True, "eos_token_id": [1, 2], "min_p": None}
    (tmp_path / "generation_config.json").write_text(json.dumps(stated))
    found = own_sampling(tmp_path)
    assert found == {"temp": 0.6, "top_p": 0.9, "top_k": 20, "penalty_repeat": 1.05}
    Description(name="m", license=License("MIT"), size_label="8M", sampling=found)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ('{"top_k": 20.0, "penalty_last_n": 64.0, "temperature": 1}',
         {"top_k": 20, "penalty_last_n": 64, "temp": 1}),
        ('{"top_k": true, "top_p": false, "min_p": "0.1", "temperature": [0.6]}', {}),
        ('{"top_k": 1e300, "temperature": NaN, "top_p": Infinity}', {}),
    ],
)  # fmt: skip
def test_sampling_of_any_json_becomes_keys_of_the_right_type_or_none(
    tmp_path: Path, stated: str, expected: dict[str, float]
) -> None:
    (tmp_path / "generation_config.json").write_text(stated)
    found = own_sampling(tmp_path)
    assert found == expected
    own = Description(name="m", license=License("MIT"), size_label="8M", sampling=found)
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    describe(writer, own, 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
