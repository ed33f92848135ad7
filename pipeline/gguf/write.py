"""Merge the adapter into the base and write the result as one 16-bit GGUF, tensor by tensor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipeError
from pipeline.gguf.adapter import Delta, check_fit
from pipeline.gguf.checkpoint import Checkpoint, to_bits
from pipeline.gguf.llama import Llama, Vocabulary

_FILE_TYPE = {"F32": 0, "F16": 1, "BF16": 32}


@dataclass(frozen=True)
class Description:
    """What the file says about itself."""

    name: str
    base: str
    license: str
    chat_template: str
    bos: str
    end_of_turn: str
    pad: str
    sampling: Mapping[str, float]


@dataclass(frozen=True)
class Merged:
    """The base's weights with the adapter in them; nothing is computed until a tensor is read."""

    base: Checkpoint
    deltas: Mapping[str, Delta]
    llama: Llama

    @classmethod
    def of(cls, base: Checkpoint, deltas: dict[str, Delta], config: dict[str, Any]) -> "Merged":
        """Raises PipeError when the adapter or the weights do not fit the configuration."""
        llama = Llama.from_config(config)
        check_fit(deltas, base)
        known = {theirs for theirs, _ in llama.names()}
        if missing := sorted(known - set(base)):
            raise PipeError(f"The weights lack {missing[0]}.", "Fetch the base again.")
        return cls(base, deltas, llama)

    @property
    def dtype(self) -> str:
        """The base's 16-bit type, which the file keeps."""
        return self.base.dtype("model.embed_tokens.weight")

    def tensor(self, name: str, gguf_name: str) -> npt.NDArray[Any]:
        """Bits to write: matrices in the base's type, norms in fp32.

        Raises PipeError for NaN or infinity in what was merged.
        """
        stored = self.base.read(name)
        if stored.bits.ndim == 1:
            return stored.float32()
        bits = stored.bits
        if delta := self.deltas.get(name):
            values = delta.added_to(stored.float32())
            if not np.isfinite(values).all():
                raise PipeError(f"The merged tensor {name} holds NaN or infinity.")
            bits = to_bits(values, stored.dtype)
        return self.llama.permuted(gguf_name, np.asarray(bits))


def write_gguf(
    path: Path,
    merged: Merged,
    vocabulary: Vocabulary,
    description: Description,
    progress: Callable[[int, int], None],
) -> None:
    """Write the file; `progress` gets (tensors done, tensors in all)."""
    from gguf import GGMLQuantizationType, GGUFWriter

    writer = GGUFWriter(path, "llama")
    _describe(writer, merged, description)
    _add_vocabulary(writer, vocabulary, description)
    kind = GGMLQuantizationType[merged.dtype]
    names = list(merged.llama.names())
    for theirs, ours in names:
        shape = merged.base.shape(theirs)
        stored, width = (kind, kind_bytes(merged.dtype)) if len(shape) > 1 else (_f32(), 4)
        writer.add_tensor_info(
            ours, shape, np.dtype(np.float32), int(np.prod(shape)) * width, raw_dtype=stored
        )
    factors = merged.llama.rope_factors()
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, (theirs, ours) in enumerate(names):
        writer.write_tensor_data(merged.tensor(theirs, ours))
        progress(number + 1, len(names))
    if factors is not None:
        writer.write_tensor_data(factors)
    writer.close()


def kind_bytes(dtype: str) -> int:
    return 4 if dtype == "F32" else 2


def _f32() -> Any:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType.F32


def _describe(writer: Any, merged: Merged, description: Description) -> None:
    llama = merged.llama
    writer.add_type("model")
    writer.add_name(description.name)
    writer.add_license(description.license)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, description.base)
    writer.add_size_label(_size_label(merged.base))
    for key, value in description.sampling.items():
        writer.add_float32(f"general.sampling.{key}", value)
    writer.add_file_type(_FILE_TYPE[merged.dtype])
    writer.add_quantization_version(2)
    writer.add_block_count(llama.layers)
    writer.add_context_length(llama.context)
    writer.add_embedding_length(llama.hidden)
    writer.add_feed_forward_length(llama.intermediate)
    writer.add_head_count(llama.heads)
    writer.add_head_count_kv(llama.kv_heads)
    writer.add_key_length(llama.head_dim)
    writer.add_value_length(llama.head_dim)
    writer.add_rope_dimension_count(llama.head_dim)
    writer.add_rope_freq_base(float(llama.rope["rope_theta"]))
    writer.add_layer_norm_rms_eps(llama.norm_eps)
    writer.add_vocab_size(llama.vocab)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary, description: Description) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    end = vocabulary.id_of(description.end_of_turn)
    writer.add_bos_token_id(vocabulary.id_of(description.bos))
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(end)
    if (pad := vocabulary.ids.get(description.pad)) is not None:
        writer.add_pad_token_id(pad)
    writer.add_add_bos_token(True)
    writer.add_chat_template(description.chat_template)


def _size_label(base: Checkpoint) -> str:
    """Parameters in the hub's short form, such as 1.2B or 3.4M."""
    total = sum(int(np.prod(base.shape(name))) for name in base)
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if total >= size:
            return f"{total / size:.1f}{unit}"
    return f"{total / 1e3:.0f}K"
