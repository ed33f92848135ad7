"""Load the base, the adapter on it, the merge of both, or a model that was trained in full."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.base import Base
from pipeline.errors import PipeError

Variant = Literal["base", "adapter", "merged"]
Bits = Literal[4, 8, 16]
Scheme = Literal["nf4", "nf4-dq", "fp4", "llm-int8"]
"""Of bitsandbytes, by name: NF4 without and with double quantization, FP4, LLM.int8()."""
_TRAINED: Mapping[Bits, Scheme] = {4: "nf4-dq", 8: "llm-int8"}


def load_model(
    variant: Variant,
    base: Base,
    adapter: Path | None,
    *,
    bits: Bits | Scheme = 16,
    device: str,
) -> Any:
    """The model, ready to be asked: fp32 on a CPU, so that processors agree; bf16 on a GPU.

    `device` is "cuda" or "cpu". In 4 `bits` the base's weights are NF4, doubly quantized, in 8
    LLM.int8(), as train loads them; a scheme says it by name. Without an adapter `base` is the
    model itself: one that was trained in full is a base in all but its name. Raises PipeError where
    there is no such GPU, ValueError for a merge in fewer than 16 bits.
    """
    # torch 2.14 warns of its own enums as it loads
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    # LLM.int8() says at every layer of every token that it rounds its inputs to fp16 first
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    if variant == "merged" and bits != 16:
        raise ValueError("a merged model has 16 bits")
    disable_progress_bar()
    on_gpu = device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise PipeError(
            "This recipe evaluates on a CUDA GPU and torch sees none here.",
            "On a CPU the shipped demo runs: pipe run -r demo. For the driver see: pipe doctor",
        )
    dtype = torch.bfloat16 if on_gpu else torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        base.folder,
        dtype=dtype,
        device_map={"": 0 if on_gpu else "cpu"},
        quantization_config=_quantization(bits, dtype),
        trust_remote_code=False,
    )
    # a base's own sampling, such as a top_k or a penalty, is no part of the protocol
    model.generation_config = GenerationConfig()
    if variant == "base" or adapter is None:
        return model.eval()
    return _with_adapter(model, variant, adapter).eval()


def scale_tensors(layer: Any) -> list[Any]:
    """What bitsandbytes keeps of a layer's weight beside its codes; [] for one in 16 or 32 bits.

    The scales of its blocks or rows and, where those are quantized in turn, theirs and their mean.
    The tables of levels are not among them: all layers share one.
    """
    weight, state = getattr(layer, "weight", None), getattr(layer, "state", None)
    blocks = getattr(weight, "quant_state", None)
    found = [getattr(weight, "SCB", None), getattr(state, "SCB", None)]
    if blocks is not None:
        found = [blocks.absmax]
        found += [blocks.offset, blocks.state2.absmax] if blocks.nested else []
    return [tensor for tensor in found if tensor is not None]


def scale_bytes(model: Any) -> int:
    """Bytes of all layers' scales, which no parameter or buffer of the model shows."""
    layers = model.modules()
    return sum(tensor.nbytes for layer in layers for tensor in scale_tensors(layer))


def _quantization(bits: Bits | Scheme, dtype: Any) -> Any:
    """None leaves the weights as they are."""
    from transformers import BitsAndBytesConfig

    if bits == 16:
        return None
    scheme = bits if isinstance(bits, str) else _TRAINED[bits]
    if scheme == "llm-int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=scheme.removesuffix("-dq"),
        bnb_4bit_use_double_quant=scheme.endswith("-dq"),
        bnb_4bit_compute_dtype=dtype,
    )


def _with_adapter(model: Any, variant: Variant, adapter: Path) -> Any:
    import torch
    from peft import PeftModel

    tuned = PeftModel.from_pretrained(model, str(adapter))
    if variant == "adapter":
        return tuned
    merged = tuned.merge_and_unload()
    # the served weights have passed through 16 bits: so do these
    for parameter in merged.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).to(parameter.dtype)
    return merged
