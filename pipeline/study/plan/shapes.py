"""How many weights a model has, where they are, and what a cache of its keys and values takes."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.gguf.models import Architecture, architecture_of
from pipeline.gguf.models.architecture import EMBEDDING, HEAD
from pipeline.recipe.training import Lora


@dataclass(frozen=True)
class Tensor:
    """One tensor by its checkpoint name; `shape` has rows first."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def module(self) -> str:
        """Such as `q_proj` or `embed_tokens`."""
        return self.name.split(".")[-2]


@dataclass(frozen=True)
class Shape:
    """A Llama or a Qwen by its config.json; sizes count weights."""

    architecture: Architecture

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor that it computes with; a tied head is none of its own."""
        model = self.architecture
        return tuple(Tensor(name, model.shape_of(name)) for name in model.names())

    @cached_property
    def parameters(self) -> int:
        """As `sum(p.numel() for p in model.parameters())` counts: a tied head once."""
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def matrices(self) -> tuple[Tensor, ...]:
        """The projections of all layers: what a 4-bit or an 8-bit base holds in fewer bits."""
        apart = (EMBEDDING, HEAD)
        return tuple(t for t in self.tensors if len(t.shape) == 2 and t.name not in apart)

    @cached_property
    def matrix_weights(self) -> int:
        return sum(tensor.size for tensor in self.matrices)

    @property
    def embedding(self) -> int:
        """Weights of the embedding table, which is also the head where that is tied."""
        return self.architecture.vocab * self.architecture.hidden

    @property
    def queries(self) -> int:
        """Values of all query heads of one token."""
        return self.architecture.heads * self.architecture.head_dim

    @property
    def keys(self) -> int:
        """Values of all key heads of one token; the value heads have as many."""
        return self.architecture.kv_heads * self.architecture.head_dim

    def kv_cache_bytes(self, tokens: int, bytes_each: int = 2) -> int:
        """Keys and values of `tokens` in all layers: 2 x layers x kv_heads x head_dim x tokens.

        16 bits each, as llama.cpp and Ollama hold them unless told otherwise (Pope et al. 2022,
        arXiv 2211.05102, section 3.3, with the shared heads of Ainslie et al. 2023).
        """
        return 2 * self.architecture.layers * self.keys * tokens * bytes_each

    def adapter(self, lora: Lora) -> Iterator[int]:
        """The size of each tensor of a LoRA adapter: A is [r, columns], B is [rows, r].

        Hu et al. 2021 (arXiv 2106.09685), section 4.1; DoRA adds a magnitude a row (Liu et al.
        2024, arXiv 2402.09353, section 4).
        """
        for tensor in self.tensors:
            if tensor.module in lora.target_modules and len(tensor.shape) == 2:
                rows, columns = tensor.shape
                yield from (lora.r * columns, lora.r * rows)
                if lora.dora:
                    yield rows


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape of a config.json. Raises PipeError for a model that this pipe does not tune."""
    return Shape(architecture_of(config))
