"""Rotary position embedding: its base and its scaling, from config.json into the file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipeError

if TYPE_CHECKING:
    from gguf import GGUFWriter

_NUMBERS = (
    "rope_theta", "factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow",
    "attention_factor", "mscale", "mscale_all_dim", "original_max_position_embeddings",
)  # fmt: skip
_NEEDED = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}


@dataclass(frozen=True)
class Rope:
    """`kind` is Transformers' rope_type; `scaling` holds its numbers, `theta` is the base."""

    kind: str
    theta: float
    scaling: Mapping[str, Any]
    original_context: int
    """Context length of the training before the scaling, in tokens."""

    @classmethod
    def of(cls, config: Mapping[str, Any], kinds: frozenset[str]) -> "Rope":
        """From config.json of Transformers 5 (`rope_parameters`) or 4 (`rope_scaling`).

        Which wins follows Transformers' convert_rope_params_to_dict and standardize_rope_params.
        Raises PipeError for a scaling that is not among `kinds`, naming it, and for one that is no
        object of numbers.
        """
        place = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
        scaling = config.get(place) or {}
        if not isinstance(scaling, Mapping):
            raise PipeError(f"config.json has no usable {place}.", "Fetch the base again.")
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if any(isinstance(value, Mapping) for value in scaling.values()):
            raise PipeError("The base has a RoPE for each kind of layer; one for all is exported.")
        if kind not in kinds:
            raise PipeError(
                f"The base scales its RoPE by {kind}; exported are {', '.join(sorted(kinds))}."
            )
        for key in _NEEDED.get(kind, ()):
            if scaling.get(key) is None:
                raise PipeError(f"The base's {kind} RoPE scaling lacks {key}.", "Mend config.json.")
        for source, key in ((source, key) for source in (config, scaling) for key in _NUMBERS):
            if not _is_number_or_none(source.get(key)):
                raise PipeError(f"config.json has no usable {key}.", "Fetch the base again.")
        _check_whole(config, scaling)
        original = (
            config.get("original_max_position_embeddings")
            or scaling.get("original_max_position_embeddings")
            or config["max_position_embeddings"]
        )
        theta = scaling.get("rope_theta") or config.get("rope_theta") or 10000.0
        return cls(kind, float(theta), scaling, int(original))

    def factors(self, head_dim: int) -> npt.NDArray[np.float32] | None:
        """What each frequency is divided by: F32 [head_dim / 2]; None where one factor is enough.

        Llama 3's scaling (LlamaModel.generate_extra_tensors in llama.cpp's conversion/llama.py):
        short wavelengths stay, long ones are stretched by the factor, between them it is smooth.
        """
        if self.kind != "llama3":
            return None
        factor, low, high = (
            float(self.scaling[key]) for key in ("factor", "low_freq_factor", "high_freq_factor")
        )
        original = self.original_context
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / head_dim
        # powers in fp64: numpy's fp32 ones differ in the last bit from machine to machine
        powers = (self.theta ** exponents.astype(np.float64)).astype(np.float32)
        wavelengths = 2 * math.pi / (1 / powers)
        smooth = (original / wavelengths - low) / (high - low)
        between = 1 / ((1 - smooth) / factor + smooth)
        factors = np.where(wavelengths > original / low, np.float32(factor), between)
        return np.where(wavelengths < original / high, np.float32(1), factors).astype(np.float32)

    def add_to(self, writer: "GGUFWriter") -> None:
        """The keys of TextModel.set_gguf_parameters (llama.cpp's conversion/base.py)."""
        from gguf import RopeScalingType

        if self.kind == "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(self.scaling["factor"]))
        if self.kind == "yarn":
            writer.add_rope_scaling_type(RopeScalingType.YARN)
            self._add_yarn(writer)
        writer.add_rope_freq_base(self.theta)

    def _add_yarn(self, writer: "GGUFWriter") -> None:
        writer.add_rope_scaling_factor(float(self.scaling["factor"]))
        writer.add_rope_scaling_orig_ctx_len(self.original_context)
        if (fast := self.scaling.get("beta_fast")) is not None:
            writer.add_rope_scaling_yarn_beta_fast(float(fast))
        if (slow := self.scaling.get("beta_slow")) is not None:
            writer.add_rope_scaling_yarn_beta_slow(float(slow))
        correction = self._attention_factor() / _mscale(float(self.scaling["factor"]))
        if correction != 1:
            # llama_context takes mscale(factor) whatever yarn_attn_factor says, and only
            # multiplies it by this key
            writer.add_rope_scaling_attn_factors(correction)

    def _attention_factor(self) -> float:
        """What Transformers multiplies cos and sin by (_compute_yarn_parameters)."""
        factor = float(self.scaling["factor"])
        if (stated := self.scaling.get("attention_factor")) is not None:
            return float(stated)
        once, always = self.scaling.get("mscale"), self.scaling.get("mscale_all_dim")
        if once and always:
            return _mscale(factor, once) / _mscale(factor, always)
        return _mscale(factor)


def _mscale(factor: float, weight: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _is_number_or_none(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return value is None
    return isinstance(value, int | float) and math.isfinite(value)


def _check_whole(config: Mapping[str, Any], scaling: Mapping[str, Any]) -> None:
    """Refuse what llama.cpp would compute otherwise."""
    part = scaling.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if part not in (None, 1, 1.0):
        raise PipeError(f"The base rotates only a part of each head ({part}); all is exported.")
    if scaling.get("truncate") is False:
        raise PipeError("The base's yarn RoPE scaling sets truncate to false; llama.cpp truncates.")
