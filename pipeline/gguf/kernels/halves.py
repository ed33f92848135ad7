"""Between fp32 and the 16-bit floats that checkpoints hold, bit for bit as ggml converts."""

import numpy as np
import numpy.typing as npt

from pipeline.gguf.kernels.lanes import F32, compiled, from_half, to_half

U16 = npt.NDArray[np.uint16]


@compiled
def bf16_to_fp32(bits: U16, out: F32) -> None:
    """Fill fp32 [n] with the values of bf16 bits [n]; exact, NaN bits kept."""
    words = out.view(np.uint32)
    for i in range(bits.size):
        words[i] = np.uint32(bits[i]) << np.uint32(16)


@compiled
def fp16_to_fp32(bits: U16, out: F32) -> None:
    """Fill fp32 [n] with the values of fp16 bits [n]; exact (ggml_compute_fp16_to_fp32)."""
    for i in range(bits.size):
        out[i] = from_half(bits[i])


@compiled
def fp32_to_bf16(values: F32, out: U16) -> None:
    """Fill bits [n] with the nearest bf16, half to even (ggml_compute_fp32_to_bf16)."""
    words = values.view(np.uint32)
    for i in range(words.size):
        word = words[i]
        odd = (word >> np.uint32(16)) & np.uint32(1)
        rounded = np.uint32(word + (np.uint32(0x7FFF) + odd))
        if (word & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):
            rounded = word | np.uint32(64 << 16)  # a NaN must stay one, and quiet
        out[i] = np.uint16(rounded >> np.uint32(16))


@compiled
def fp32_to_fp16(values: F32, out: U16) -> None:
    """Fill bits [n] with the nearest fp16, half to even (ggml_compute_fp32_to_fp16)."""
    for i in range(values.size):
        out[i] = to_half(values[i])
