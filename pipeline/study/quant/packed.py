"""Linear layers whose weight is kept packed and unpacked at each use: int8 by rows, and GPTQ."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from pipeline.study.explain.numbers import absmax_int8

Tensors = Mapping[str, torch.Tensor]
Unpack = Callable[[Tensors], torch.Tensor]


class PackedLinear(nn.Module):
    """`unpack` makes the weight, fp32 [out, in], of the tensors that are kept.

    It computes as a layer of that weight does, so it takes less memory and more time.
    """

    def __init__(self, tensors: Tensors, unpack: Unpack, bias: torch.Tensor | None) -> None:
        super().__init__()
        self._names = tuple(tensors)
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self.bias = bias
        self._unpack = unpack

    @property
    def kept(self) -> dict[str, torch.Tensor]:
        return {name: self.get_buffer(name) for name in self._names}

    def unpacked(self) -> torch.Tensor:
        return self._unpack(self.kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.unpacked().to(x.dtype), self.bias)


def pack(model: nn.Module, packed: Callable[[str, nn.Linear], PackedLinear]) -> None:
    """Put a packed layer in the place of every linear one, but for the output embedding.

    Those are the layers that bitsandbytes narrows.
    """
    for name, layer in list(linear_layers(model)):
        model.set_submodule(name, packed(name, layer))


def linear_layers(model: Any) -> Iterator[tuple[str, nn.Linear]]:
    head = model.get_output_embeddings()
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and layer is not head:
            yield name, layer


def absmax_layer(_: str, layer: nn.Linear) -> PackedLinear:
    """int8 codes [out, in] and one fp32 scale a row."""
    weight = layer.weight.detach()
    codes, scales = absmax_int8(weight.float().cpu().numpy())
    tensors = {"codes": torch.from_numpy(codes), "scales": torch.from_numpy(scales)}
    on_device = {name: tensor.to(weight.device) for name, tensor in tensors.items()}
    return PackedLinear(on_device, from_absmax, layer.bias)


def from_absmax(kept: Tensors) -> torch.Tensor:
    """w = code * scale, as `from_absmax_int8` has it."""
    return kept["codes"].float() * kept["scales"][:, None]


def from_gptq(kept: Tensors) -> torch.Tensor:
    """fp32 [out, in] of 4-bit GPTQ as gptqmodel saves it in its format `gptq`.

    `qweight` int32 [in / 8, out] holds eight inputs' codes a number, the lowest bits first,
    `qzeros` int32 [groups, out / 8] eight outputs' zero points less one, `scales` [groups, out];
    `g_idx` [in] says which group an input is of: w = scale * (code - zero point).
    """
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=kept["qweight"].device)
    weight, zeros, scales = kept["qweight"], kept["qzeros"], kept["scales"].float()
    codes = ((weight[:, None, :] >> shifts[None, :, None]) & 15).reshape(-1, weight.shape[1])
    points = ((zeros[:, :, None] >> shifts) & 15).reshape(len(zeros), -1) + 1
    groups = kept["g_idx"].long()
    return (scales[groups] * (codes - points[groups])).T.contiguous()
