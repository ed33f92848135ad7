"""FLOPs, peaks and the line of a step, against figures that others have published."""

import json
import math
from collections.abc import Iterator

import pytest

from pipeline.assets import asset
from pipeline.train.meter import StepMeter, flops_per_token, matrix_weights, peak_flops

ONE_B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
EIGHT_B = ONE_B | {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "head_dim": 128,
    "tie_word_embeddings": False,
}


def test_the_weights_are_those_that_the_shipped_base_multiplies_with() -> None:
    from safetensors import safe_open

    folder = asset("data/tiny-llama")
    config = json.loads((folder / "config.json").read_text())
    with safe_open(folder / "model.safetensors", "numpy") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    assert "lm_head.weight" not in matrices  # tied: the embeddings are the head
    assert matrix_weights(config) == sum(math.prod(shape) for shape in matrices.values())


def test_llama_has_the_weights_that_meta_publishes() -> None:
    norms = 33 * 2048
    assert matrix_weights(ONE_B) + norms == 1_235_814_400
    norms, looked_up = 65 * 4096, 128256 * 4096
    assert matrix_weights(EIGHT_B) + norms + looked_up == 8_030_261_248


def test_old_configs_without_head_dim_or_groups_are_read_too() -> None:
    bare = {key: value for key, value in ONE_B.items() if key != "head_dim"}
    assert matrix_weights(bare) == matrix_weights(ONE_B)
    whole = {key: value for key, value in bare.items() if key != "num_key_value_heads"}
    more = 16 * 2 * 2048 * 64 * (32 - 8)
    assert matrix_weights(whole) == matrix_weights(ONE_B) + more


def test_a_frozen_base_costs_two_thirds_of_a_full_training() -> None:
    assert flops_per_token(ONE_B, "frozen") == 4 * matrix_weights(ONE_B)
    assert flops_per_token(ONE_B, "full") == 6 * matrix_weights(ONE_B)


@pytest.mark.parametrize(
    ("name", "bf16", "fp16"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 989.4),
        ("NVIDIA H100 PCIe", 756.5, 756.5),
        ("NVIDIA H100 NVL", 835.5, 835.5),
        ("NVIDIA H200", 989.4, 989.4),
        ("NVIDIA GH200 480GB", 989.4, 989.4),
        ("NVIDIA A100-SXM4-80GB", 312.0, 312.0),
        ("NVIDIA A100-PCIE-40GB", 312.0, 312.0),
        ("NVIDIA A10", 125.0, 125.0),
        ("NVIDIA A10G", 70.0, 70.0),
        ("NVIDIA L4", 121.0, 121.0),
        ("NVIDIA L40", 181.05, 181.05),
        ("NVIDIA L40S", 362.05, 362.05),
        ("Tesla T4", None, 65.0),
        ("Tesla V100-SXM2-16GB", None, 125.0),
        ("Tesla V100-PCIE-16GB", None, 112.0),
        ("NVIDIA GeForce RTX 3090", 71.0, 71.0),
        ("NVIDIA GeForce RTX 4090", 165.2, 165.2),
        ("NVIDIA GeForce RTX 5090", 209.5, 209.5),
        ("NVIDIA GeForce RTX 4090 D", None, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None),
        ("NVIDIA RTX A1000", None, None),
        ("cpu", None, None),
        ("", None, None),
    ],
)
def test_peaks_are_those_of_the_data_sheets(
    name: str, bf16: float | None, fp16: float | None
) -> None:
    wanted = [None if peak is None else peak * 1e12 for peak in (bf16, fp16, None)]
    assert [peak_flops(name, precision) for precision in ("bf16", "fp16", "fp32")] == wanted


def ticking(*moments: float) -> Iterator[float]:
    return iter(moments)


def test_mfu_agrees_with_nemos_published_run() -> None:
    """12,473 tokens/s of an 8B LoRA on one H100 are 402 TFLOP/s by NeMo, which counts the
    embedding table too: 40.6%; without it 37.8%."""
    clock = ticking(0.0, 10.0)
    meter = StepMeter(
        flops_per_token(EIGHT_B, "frozen"), 989.4e12, clock=lambda: next(clock), memory=lambda: 1
    )
    assert meter.end(1, 124_730)["mfu"] == pytest.approx(0.378, abs=0.001)


def test_a_step_is_timed_from_the_one_before_or_from_begin() -> None:
    clock = ticking(0.0, 2.0, 7.0, 8.0)
    meter = StepMeter(1e9, None, clock=lambda: next(clock), memory=lambda: 5_000)
    first = meter.end(1, 1000)
    meter.begin()  # at 7: an evaluation came between
    second = meter.end(2, 1000)
    assert first == {
        "step": 1,
        "seconds": 2.0,
        "tokens_per_second": 500.0,
        "mfu": None,
        "memory_bytes": 5_000,
    }
    assert (second["seconds"], second["tokens_per_second"]) == (1.0, 1000.0)


def test_a_clock_that_stands_still_does_not_divide_by_nothing() -> None:
    meter = StepMeter(1.0, 1.0, clock=lambda: 3.0, memory=lambda: 0)
    assert math.isfinite(meter.end(1, 10)["tokens_per_second"])
