"""Packed layers compute what their unpacked weight does; GPTQ is read as its tool reads it."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.study.explain.numbers import absmax_int8, from_absmax_int8

pytestmark = pytest.mark.e2e

GOLDEN = Path(__file__).with_name("gptq-layer.safetensors")
"""128 inputs (the second half of one group, the first of the next) and 32 outputs of a projection
that gptqmodel 7.6.0 quantized, and as `weight` what its own dequantize_weight makes of them, bf16.
"""


def test_gptq_is_unpacked_as_gptqmodel_does() -> None:
    from safetensors.torch import load_file

    from pipeline.study.quant.packed import from_gptq

    kept = load_file(GOLDEN)
    wanted = kept.pop("weight").float()
    found = from_gptq(kept)
    assert found.shape == wanted.shape == (32, 128)
    # its scales and its products are rounded to the 8 bits of bf16
    assert ((found - wanted).abs() <= wanted.abs() / 128 + 1e-6).all()
    assert len(set(kept["g_idx"].tolist())) == 2 and wanted.std() > 0.01


def test_an_absmax_layer_computes_with_the_weight_that_its_codes_stand_for() -> None:
    import torch
    from torch.nn.functional import linear

    from pipeline.study.quant.packed import absmax_layer

    torch.manual_seed(0)
    layer = torch.nn.Linear(48, 16)
    packed = absmax_layer("any", layer)
    weight = from_absmax_int8(*absmax_int8(layer.weight.detach().numpy()))
    assert np.array_equal(packed.unpacked().numpy(), weight)
    x = torch.randn(3, 48)
    assert torch.equal(packed(x), linear(x, torch.from_numpy(weight), layer.bias))
    assert sum(tensor.nbytes for tensor in packed.kept.values()) == 48 * 16 + 4 * 16


def test_every_linear_layer_is_packed_but_the_output_and_each_is_told_as_it_is_held() -> None:
    from pipeline.base import open_base
    from pipeline.engines.loading import load_model
    from pipeline.recipe.schema import Model
    from pipeline.study.quant.held import held_in_torch
    from pipeline.study.quant.packed import PackedLinear, absmax_layer, pack

    base = open_base(Model(base="builtin:tiny-llama"))
    model = load_model("base", base, None, device="cpu")
    pack(model, absmax_layer)
    packed = [name for name, each in model.named_modules() if isinstance(each, PackedLinear)]
    assert len(packed) == 7 * base.config["num_hidden_layers"] and "lm_head" not in packed
    held = held_in_torch(model, base)
    assert set(held.errors) == {f"{name}.weight" for name in packed}
    rows = sum(
        each.unpacked().shape[0] for each in model.modules() if isinstance(each, PackedLinear)
    )
    assert held.quantized_bytes == held.quantized + 4 * rows
    assert all(0 < error < 0.02 for error in held.errors.values())
    assert held.bytes == held.quantized_bytes + 2 * (held.parameters - held.quantized)
