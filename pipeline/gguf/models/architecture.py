"""A model's architecture in GGUF: hyper-parameters, tensor names and order, the order of rows."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipeError
from pipeline.gguf.models.family import ATTENTION, FEED_FORWARD, Family, family_of
from pipeline.gguf.models.rope import Rope

if TYPE_CHECKING:
    from gguf import GGUFWriter

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
_INTEGERS = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)


@dataclass(frozen=True)
class Placed:
    """A tensor's name in the checkpoint and its name in the file."""

    source: str
    name: str


@dataclass(frozen=True)
class Architecture:
    """What config.json says, checked. Sizes count elements, `context` and `vocab` tokens."""

    family: Family
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    vocab: int
    norm_eps: float
    tied: bool
    """Whether the output reuses the embedding: the file then has no output.weight."""
    rope: Rope
    biased: tuple[str, ...]
    """Modules of each layer that have a bias."""

    @property
    def gguf_name(self) -> str:
        """general.architecture: llama, qwen2 or qwen3."""
        return self.family.gguf_name

    def resized(self, rows: int) -> "Architecture":
        """The same with an embedding of `rows` rows, as an adapter may bring one."""
        return replace(self, vocab=rows)

    def tensors(self, stored: Iterable[str], own_head: bool = False) -> list[Placed]:
        """Every tensor to write, in the order in which llama.cpp's type rules count layers.

        `stored` are the names in the checkpoint (and what an adapter adds to it). With tied
        embeddings a stored lm_head is a leftover and dropped, as Transformers does where it
        equals the embedding; `own_head` keeps it. Raises PipeError naming a tensor that is
        missing, or one that has no place.
        """
        stored = set(stored)
        names = list(self._names())
        if own_head or not self.tied:
            names.append(HEAD)
        if missing := [name for name in names if name not in stored]:
            raise PipeError(f"The weights lack {missing[0]}.", "Fetch the base again.")
        left = stored.difference(names, () if not self.tied else (HEAD,))
        unknown = sorted(name for name in left if not name.endswith(".rotary_emb.inv_freq"))
        if unknown:
            raise PipeError(
                f"The weights hold {unknown[0]}, which a {self.family.model_class} does not have.",
                "Name the language model's own checkpoint.",
            )
        return self._placed(names)

    def names(self) -> dict[str, str]:
        """Checkpoint name -> GGUF name of every tensor that the model computes with."""
        sources = [*self._names(), *(() if self.tied else (HEAD,))]
        return {placed.source: placed.name for placed in self._placed(sources)}

    def shape_of(self, source: str) -> tuple[int, ...]:
        """The shape that config.json gives a checkpoint tensor: (rows, columns), or (values,)."""
        module, _, kind = source.rpartition(".")
        module = module.rpartition(".")[2]
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        rows, columns = {
            "embed_tokens": (self.vocab, self.hidden),
            "lm_head": (self.vocab, self.hidden),
            "q_proj": (queries, self.hidden),
            "k_proj": (keys, self.hidden),
            "v_proj": (keys, self.hidden),
            "o_proj": (self.hidden, queries),
            "gate_proj": (self.intermediate, self.hidden),
            "up_proj": (self.intermediate, self.hidden),
            "down_proj": (self.hidden, self.intermediate),
            "q_norm": (self.head_dim, 0),
            "k_norm": (self.head_dim, 0),
        }.get(module, (self.hidden, 0))
        return (rows, columns) if columns and kind == "weight" else (rows,)

    def row_order(self, name: str, rows: int) -> npt.NDArray[np.int64] | None:
        """For each row of the GGUF tensor `name`, the row of the checkpoint's: int64 [rows].

        None where rows stay as stored. Weights and biases of q and k change places as in
        LlamaModel.permute (llama.cpp's conversion/llama.py): in each head the halves interleave.
        Raises PipeError where the rows do not divide into the heads.
        """
        heads = self._rotated_heads(name)
        if heads is None:
            return None
        if rows != heads * self.head_dim:
            raise PipeError(
                f"{name} has {rows} rows; {heads} heads of {self.head_dim} need "
                f"{heads * self.head_dim}.",
                "config.json and the weights are not of the same model.",
            )
        return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).ravel()

    def extra_tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Tensors that no checkpoint holds: rope_freqs.weight, F32 [head_dim / 2], for llama3."""
        factors = self.rope.factors(self.head_dim)
        return {} if factors is None else {"rope_freqs.weight": factors}

    def add_to(self, writer: "GGUFWriter") -> None:
        """The hyper-parameters, as TextModel.set_gguf_parameters (conversion/base.py) writes them.

        head_dim, rope.dimension_count and vocab_size are written for every family, where
        conversion/ leaves llama.cpp's default for some: the values are the same.
        """
        writer.add_block_count(self.layers)
        writer.add_context_length(self.context)
        writer.add_embedding_length(self.hidden)
        writer.add_feed_forward_length(self.intermediate)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        self.rope.add_to(writer)
        writer.add_layer_norm_rms_eps(self.norm_eps)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_vocab_size(self.vocab)
        writer.add_rope_dimension_count(self.head_dim)

    def _names(self) -> Iterator[str]:
        yield EMBEDDING
        norms = ("self_attn.q_norm", "self_attn.k_norm") if self.family.head_norms else ()
        modules = (
            "input_layernorm",
            *ATTENTION,
            *norms,
            "post_attention_layernorm",
            *FEED_FORWARD,
        )
        for layer in range(self.layers):
            for module in modules:
                yield f"model.layers.{layer}.{module}.weight"
                if module in self.biased:
                    yield f"model.layers.{layer}.{module}.bias"
        yield "model.norm.weight"

    def _placed(self, names: list[str]) -> list[Placed]:
        from gguf import MODEL_ARCH, get_tensor_name_map

        table = get_tensor_name_map(MODEL_ARCH[self.gguf_name.upper()], self.layers)
        return [Placed(name, table.get_name(name, (".weight", ".bias"))) for name in names]

    def _rotated_heads(self, name: str) -> int | None:
        if not self.family.rotates_neighbours:
            return None
        module = name.rpartition(".")[0].rpartition(".")[2]
        return {"attn_q": self.heads, "attn_k": self.kv_heads}.get(module)


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The architecture of a config.json (Transformers 4 or 5).

    Raises PipeError naming what is not exported: another model, RoPE scaling, activation, sliding
    windows, biases without a place, or a value that is missing, of a wrong kind or does not fit
    the others.
    """
    try:
        return _read(config)
    except (TypeError, ValueError, OverflowError) as error:
        raise PipeError(f"config.json cannot be used: {error}.", "Fetch the base again.") from None


def _read(config: Mapping[str, Any]) -> Architecture:
    family = family_of(config)
    layers, hidden, intermediate, heads, vocab, context = (
        _count(key, config.get(key)) for key in _INTEGERS
    )
    kv_heads = _count("num_key_value_heads", config.get("num_key_value_heads") or heads)
    own_head_dim = config.get("head_dim") or family.head_dim or hidden // heads
    head_dim = _count("head_dim", own_head_dim)
    _check_heads(family, hidden, heads, kv_heads, head_dim)
    return Architecture(
        family=family,
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        context=context,
        vocab=vocab,
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        tied=bool(config.get("tie_word_embeddings", False)),
        rope=Rope.of(config, family.rope_types),
        biased=family.biased(config),
    )


def _count(key: str, value: object) -> int:
    if type(value) is not int or value <= 0:
        raise PipeError(f"config.json has no usable {key}.", "Fetch the base again.")
    return value


def _check_heads(family: Family, hidden: int, heads: int, kv_heads: int, head_dim: int) -> None:
    if heads % kv_heads or head_dim % 2:
        raise PipeError(
            f"config.json has {heads} heads of {head_dim} over {kv_heads} key-value heads, which "
            "llama.cpp cannot divide.",
            "Fetch the base again.",
        )
    if not family.free_head_dim and heads * head_dim != hidden:
        raise PipeError(
            f"The base is a {family.gguf_name} with {heads} heads of {head_dim} for {hidden} "
            "hidden values; llama.cpp takes only as many as they fill."
        )
