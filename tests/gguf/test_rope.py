"""Rotary position embedding: every scaling that llama.cpp computes, in its keys and factors."""

from typing import Any

import numpy as np
import pytest

from pipeline.gguf.models import architecture_of
from tests.gguf.test_models import LLAMA, LLAMA3_ROPE, QWEN3, YARN, keys


@pytest.mark.parametrize(
    ("head_dim", "ones", "between"),
    [
        (32, 8, [3.2922627925872803]),
        (64, 15, [1.6513292789459229, 3.2922627925872803, 9.666730880737305]),
        (
            128,
            29,
            [
                1.234937071800232, 1.6513292789459229, 2.2766594886779785, 3.2922627925872803,
                5.171597003936768, 9.666730880737305,
            ],
        ),
    ],
)  # fmt: skip
def test_rope_freqs_are_those_of_llama_cpps_converter(
    head_dim: int, ones: int, between: list[float]
) -> None:
    """As convert_hf_to_gguf.py writes them for Llama 3.2, to the last bit."""
    (factors,) = architecture_of(LLAMA | {"head_dim": head_dim}).extra_tensors().values()
    rest = head_dim // 2 - ones - len(between)
    assert factors.dtype == np.float32
    assert factors.tolist() == [1.0] * ones + between + [32.0] * rest


def test_other_models_have_no_rope_freqs() -> None:
    assert not architecture_of(QWEN3).extra_tensors()
    assert not architecture_of(LLAMA | {"rope_parameters": YARN}).extra_tensors()


def rope_keys(config: dict[str, Any]) -> dict[str, Any]:
    found = keys(architecture_of(config).add_to)
    prefix = "llama.rope."
    return {
        key.removeprefix(prefix): value
        for key, value in found.items()
        if key.startswith(prefix) and "dimension" not in key
    }


def test_linear_scaling_has_its_factor() -> None:
    rope = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    assert rope_keys(LLAMA | {"rope_parameters": rope}) == {
        "scaling.type": "linear",
        "scaling.factor": 4.0,
        "freq_base": 1e4,
    }


def test_yarn_has_its_context_and_its_ramp() -> None:
    rope = YARN | {"beta_fast": 24, "beta_slow": 2}
    assert rope_keys(LLAMA | {"rope_parameters": rope}) == {
        "scaling.type": "yarn",
        "scaling.factor": 4.0,
        "scaling.original_context_length": 1024,
        "scaling.yarn_beta_fast": 24.0,
        "scaling.yarn_beta_slow": 2.0,
        "freq_base": 1e6,
    }


@pytest.mark.parametrize(
    ("stated", "correction"),
    [
        ({"attention_factor": 1.3}, 1.3 / 1.1386294361119891),
        ({"mscale": 0.5, "mscale_all_dim": 1.0}, 1.0693147180559945 / 1.1386294361119891**2),
        ({"attention_factor": 1.1386294361119891}, None),
        ({}, None),
    ],
)
def test_an_attention_factor_of_its_own_corrects_the_one_that_llama_cpp_takes(
    stated: dict[str, float], correction: float | None
) -> None:
    found = rope_keys(LLAMA | {"rope_parameters": YARN | stated}).get("scaling.attn_factor")
    assert found == (None if correction is None else pytest.approx(correction))


def test_old_and_new_configurations_say_the_same() -> None:
    """rope_scaling beside rope_theta (Transformers 4), rope_parameters (5)."""
    old = {key: value for key, value in LLAMA.items() if key != "rope_parameters"}
    scaling = {key: value for key, value in LLAMA3_ROPE.items() if key != "rope_theta"}
    old |= {"rope_theta": 500000.0, "rope_scaling": scaling}
    new, found = architecture_of(LLAMA), architecture_of(old)
    assert keys(found.add_to) == keys(new.add_to)
    assert found.extra_tensors()["rope_freqs.weight"].tolist() == (
        new.extra_tensors()["rope_freqs.weight"].tolist()
    )
    older = old | {"rope_scaling": {"type": "linear", "factor": 2.0}}
    assert rope_keys(older)["scaling.type"] == "linear"
