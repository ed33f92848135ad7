"""Tensors of both sides of an export, read by other means than the export's own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.engines.gguf_file import GgufFile, TensorInfo
from pipeline.errors import PipeError

F32 = NDArray[np.float32]

_LLAMA = "llama"

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


@dataclass(frozen=True)
class Saved:
    """One tensor of a safetensors file, mapped: [rows, columns], a vector is one row.

    The safetensors package reads bf16 through torch only, and whole tensors. Layout:
    https://huggingface.co/docs/safetensors
    """

    bits: NDArray[Any]
    """bf16 as uint16."""

    @property
    def rows(self) -> int:
        return len(self.bits)

    def at(self, rows: NDArray[np.int64]) -> F32:
        found = self.bits[rows]
        if found.dtype == np.uint16:
            return (found.astype(np.uint32) << 16).view(np.float32)
        return found.astype(np.float32)


def saved_tensors(shards: Sequence[Path]) -> dict[str, Saved]:
    """The tensors of safetensors files by name. Raises PipeError for one not in 16 or 32 bits."""
    found = {}
    for shard in shards:
        with shard.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8))
        data = np.memmap(shard, dtype=np.uint8, mode="r")
        for name, about in header.items():
            if name == "__metadata__":
                continue
            if about["dtype"] not in _DTYPES:
                raise PipeError(f"{shard.name}: {name} is {about['dtype']}, not in 16 bits.")
            first, last = (start + offset for offset in about["data_offsets"])
            bits = data[first:last].view(_DTYPES[about["dtype"]])
            columns = about["shape"][-1] if about["shape"] else 1
            found[name] = Saved(bits.reshape(-1, columns))
    return found


class Weights:
    """The 16-bit base's tensors by the names that a GGUF gives them, rows in the GGUF's order."""

    def __init__(self, shards: Sequence[Path], config: Mapping[str, Any]) -> None:
        self._shards = shards
        self._family = str(config.get("model_type") or _LLAMA)
        heads = int(config["num_attention_heads"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        self._heads = {"attn_q": heads, "attn_k": kv_heads} if self._family == _LLAMA else {}
        self._layers = int(config["num_hidden_layers"])

    @cached_property
    def tensors(self) -> dict[str, Saved]:
        """GGUF name -> tensor, by the gguf package's own table."""
        saved = saved_tensors(self._shards)
        return {theirs: saved[name] for name in saved if (theirs := self.gguf_name(name))}

    def gguf_name(self, name: str) -> str | None:
        """What a GGUF calls a tensor of the checkpoint; None for one that it does not hold."""
        found = self._table.get_name(name, try_suffixes=(".weight", ".bias"))
        return None if found is None else str(found)

    @cached_property
    def _table(self) -> Any:
        from gguf import MODEL_ARCH, get_tensor_name_map

        return get_tensor_name_map(MODEL_ARCH[self._family.upper()], self._layers)

    def rows(self, name: str, at: NDArray[np.int64]) -> F32:
        """fp32 rows of the base as they stand in a GGUF at `at`."""
        tensor = self.tensors[name]
        return tensor.at(self.order(name, tensor.rows)[at])

    def order(self, name: str, rows: int) -> NDArray[np.int64]:
        """GGUF row -> row in the checkpoint.

        llama.cpp's rope turns neighbouring pairs of a Llama, so its converter deals each head's two
        halves out in turn: LlamaModel.permute in convert_hf_to_gguf.py. Qwen's rows stay.
        """
        order = np.arange(rows)
        heads = next((n for part, n in self._heads.items() if f".{part}." in name), 0)
        if not heads or rows % (2 * heads):
            return order
        return order.reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


class Stored:
    """The tensors of a GGUF, dequantized by the gguf package."""

    def __init__(self, header: GgufFile) -> None:
        self.tensors = {tensor.name: tensor for tensor in header.tensors}
        self._data = np.memmap(header.path, dtype=np.uint8, mode="r")

    def rows(self, tensor: TensorInfo, at: NDArray[np.int64]) -> F32:
        """fp32 rows `at`, in the file's order."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        stored = self._data[tensor.offset : tensor.offset + tensor.bytes]
        rows = np.ascontiguousarray(stored.reshape(rows_of(tensor), -1)[at])
        kind = GGMLQuantizationType[tensor.type]
        if kind == GGMLQuantizationType.F32:
            return rows.view("<f4")
        if kind == GGMLQuantizationType.F16:
            return rows.view("<f2").astype(np.float32)
        return np.asarray(dequantize(rows, kind), np.float32)


def rows_of(tensor: TensorInfo) -> int:
    """A vector is one row."""
    return tensor.shape[1] if len(tensor.shape) > 1 else 1
