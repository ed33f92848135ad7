"""What a model's weights take as they are held, and how far each matrix is from its 16-bit self."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base import Base
from pipeline.check.tensors import F32, Stored, Weights, rows_of, saved_tensors
from pipeline.engines.gguf_file import read_gguf

_CHUNK = 1 << 22
"""Weights that are looked at together: 16 MB of fp32."""
_EXACT = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Held:
    """A model's weights under one method."""

    parameters: int
    bytes: int
    """Of all tensors: codes and scales, and 16 bits a weight for what is not quantized."""
    quantized: int
    """Weights in the matrices that are quantized."""
    quantized_bytes: int
    errors: Mapping[str, float]
    """Matrix by its name in the checkpoint -> root mean square error over root mean square."""

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / self.parameters

    @property
    def bits_per_quantized_weight(self) -> float:
        """Over the quantized matrices alone; 16 where there are none."""
        return 8 * self.quantized_bytes / self.quantized if self.quantized else 16.0


def held_in_torch(model: Any, reference: Base) -> Held:
    """Of a model in Transformers that has not computed yet: bitsandbytes packs anew as it does.

    `reference` is the model in 16 bits that it was made of.
    """
    saved = saved_tensors(reference.shards())
    size = {name: tensor.bits.size for name, tensor in saved.items()}
    bytes_ = {name: tensor.bits.nbytes for name, tensor in saved.items()}
    quantized, errors = [], {}
    for layer, kept, weight in _narrow_layers(model):
        name = f"{layer}.weight"
        bytes_[name] = kept
        quantized.append(name)
        chunks = ((saved[name].at(at), weight[at]) for at in _chunks(weight.shape))
        errors[name] = _relative_error(chunks)
    return Held(
        parameters=sum(size.values()),
        bytes=sum(bytes_.values()),
        quantized=sum(size[name] for name in quantized),
        quantized_bytes=sum(bytes_[name] for name in quantized),
        errors=errors,
    )


def held_in_file(path: Path, reference: Base) -> Held:
    """Of a GGUF file, dequantized by the gguf package."""
    header = read_gguf(path)
    stored, weights = Stored(header), Weights(reference.shards(), reference.config)
    names = {weights.gguf_name(name): name for name in saved_tensors(reference.shards())}
    errors = {}
    for tensor in header.tensors:
        if len(tensor.shape) < 2 or tensor.name not in weights.tensors:
            continue
        shape = (rows_of(tensor), tensor.shape[0])
        chunks = ((weights.rows(tensor.name, a), stored.rows(tensor, a)) for a in _chunks(shape))
        errors[names[tensor.name]] = _relative_error(chunks)
    narrow = [tensor for tensor in header.tensors if tensor.type not in _EXACT]
    return Held(
        parameters=sum(int(np.prod(tensor.shape)) for tensor in header.tensors),
        bytes=sum(tensor.bytes for tensor in header.tensors),
        quantized=sum(int(np.prod(tensor.shape)) for tensor in narrow),
        quantized_bytes=sum(tensor.bytes for tensor in narrow),
        errors=errors,
    )


def _narrow_layers(model: Any) -> Iterator[tuple[str, int, F32]]:
    """(name, bytes of codes and scales, the weight that they stand for, fp32 [out, in])."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    from pipeline.engines.loading import scale_tensors
    from pipeline.study.quant.packed import PackedLinear

    for name, layer in model.named_modules():
        if isinstance(layer, PackedLinear):
            kept = sum(tensor.nbytes for tensor in layer.kept.values())
            yield name, kept, _fp32(layer.unpacked())
        elif isinstance(layer, Linear4bit):
            kept = layer.weight.nbytes + sum(tensor.nbytes for tensor in scale_tensors(layer))
            weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            yield name, kept, _fp32(weight)
        elif isinstance(layer, Linear8bitLt):
            codes, scales = layer.weight.data, scale_tensors(layer)[0]
            # a row's scale is its largest |weight| (LLM.int8(), section 2.1)
            weight = codes.float() * scales.float()[:, None] / 127
            yield name, codes.nbytes + scales.nbytes, _fp32(weight)


def _fp32(weight: Any) -> F32:
    found: F32 = weight.detach().float().cpu().numpy()
    return found


def _chunks(shape: tuple[int, ...]) -> Iterator[NDArray[np.int64]]:
    step = max(1, _CHUNK // shape[1])
    for start in range(0, shape[0], step):
        yield np.arange(start, min(start + step, shape[0]))


def _relative_error(chunks: Iterator[tuple[F32, F32]]) -> float:
    """||restored - weight|| / ||weight|| over all (weight, restored); 0 for weights of zeros."""
    off = whole = 0.0
    for weight, restored in chunks:
        exact = weight.astype(np.float64)
        off += float(np.square(restored - exact).sum())
        whole += float(np.square(exact).sum())
    return sqrt(off / whole) if whole else 0.0
