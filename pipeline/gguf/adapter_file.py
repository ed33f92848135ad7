"""An adapter alone as a GGUF file, for llama.cpp's --lora."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import PipeError
from pipeline.gguf.header import Metadata
from pipeline.gguf.merged import Slab, Weight
from pipeline.gguf.models import Architecture, Description, describe_adapter
from pipeline.gguf.output import Output, finish
from pipeline.gguf.weights.changes import AddedBias, Change, Dora, LowRank, Replaced, TrainedRows
from pipeline.gguf.weights.checkpoint import F32

_HINT = "Export the merged model, which can hold it, without --adapter-gguf."
_NOT_LOW_RANK = {
    Dora: "DoRA",
    Replaced: "a whole tensor (modules_to_save or resized embeddings)",
    TrainedRows: "trained tokens (trainable_token_indices)",
    AddedBias: "LoRA biases",
}
_EMBEDDING = "token_embd.weight"


@dataclass(frozen=True)
class _Pair:
    """The two tensors that llama.cpp adds beside the tensor `name` of the model.

    Several steps, as an undone initialisation has them, stand side by side in one pair.
    """

    name: str
    steps: tuple[LowRank, ...]
    architecture: Architecture

    @property
    def rank(self) -> int:
        return sum(step.a.shape[0] for step in self.steps)

    @property
    def alpha(self) -> float:
        """The alpha that gives the first step's scale: llama.cpp divides it by the rank."""
        return float(np.float32(self.steps[0].scale * self.rank))

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of lora_a [rank, columns] and lora_b [rows, rank]; the embedding's are turned round."""
        a = (self.rank, self.steps[0].a.shape[1])
        b = (self.steps[0].b.shape[0], self.rank)
        return (b, a[::-1]) if self.name == _EMBEDDING else (a, b)

    def values(self, alpha: float) -> tuple[F32, F32]:
        """Both in fp32, where q and k change the order of B's rows, as the model's own do.

        A step of another scale than the file's `alpha` gives carries the rest in B.
        """
        a = np.concatenate([step.a.float32() for step in self.steps])
        b = np.concatenate([self._b(step, alpha) for step in self.steps], axis=1)
        order = self.architecture.row_order(self.name, len(b))
        b = b if order is None else b[order]
        return (b, np.ascontiguousarray(a.T)) if self.name == _EMBEDDING else (a, b)

    def _b(self, step: LowRank, alpha: float) -> F32:
        own = float(np.float32(step.scale * self.rank))
        return step.b.float32() if own == alpha else step.b.float32() * np.float32(own / alpha)


class AdapterFile:
    """The low-rank pairs of an adapter, to be written in F32.

    `changes` are by checkpoint name (pipeline.gguf.weights). Raises PipeError for what llama.cpp's
    adapter files cannot hold, naming it.
    """

    def __init__(
        self, path: Path, changes: Mapping[str, Change], model: Architecture, about: Description
    ) -> None:
        self._pairs = list(_pairs(changes, model))
        self._alpha = _common_alpha(self._pairs)
        self._weights = [Weight(name, None, shape) for name, shape in _places(self._pairs)]
        metadata = Metadata.of(
            model.gguf_name, lambda writer: describe_adapter(writer, about, self._alpha)
        )
        types = dict.fromkeys((weight.name for weight in self._weights), "F32")
        self.output = Output(path, metadata, self._weights, types)

    def write(self) -> None:
        """Write the file, read it back, and give it its name. Raises PipeError for NaN."""
        weights = iter(self._weights)
        with self.output as output:
            for pair in self._pairs:
                for values in pair.values(self._alpha):
                    if not np.isfinite(values).all():
                        raise PipeError(
                            f"The adapter's pair for {pair.name} holds NaN or infinity.",
                            "Train again with a lower train.learning_rate.",
                        )
                    weight = next(weights)
                    output.write(Slab(weight, 0, weight.rows), np.ascontiguousarray(values))
            finish([output])


def _pairs(changes: Mapping[str, Change], architecture: Architecture) -> Iterator[_Pair]:
    names = architecture.names()
    for source, change in changes.items():
        name = names.get(source)
        if name is None:
            raise PipeError(
                f"The adapter changes {source}, which the model's file does not have.", _HINT
            )
        if name == _EMBEDDING and architecture.tied:
            # llama.cpp would take the pair for the output too, and abort on its turned shapes
            raise PipeError(
                "The adapter changes embeddings that are tied to the output; llama.cpp cannot add "
                "to one of the two.",
                _HINT,
            )
        yield _Pair(name, _low_rank(source, change), architecture)


def _low_rank(source: str, change: Change) -> tuple[LowRank, ...]:
    for step in change.steps:
        if (what := _NOT_LOW_RANK.get(type(step))) is not None:
            raise PipeError(
                f"The adapter holds {what} for {source}; an adapter file holds low-rank pairs.",
                _HINT,
            )
    return tuple(step for step in change.steps if isinstance(step, LowRank))


def _common_alpha(pairs: list[_Pair]) -> float:
    """The alpha of most pairs; never 0, which llama.cpp takes for `do not scale`."""
    counts = Counter(pair.alpha for pair in pairs if pair.alpha)
    if not counts:
        raise PipeError("The adapter changes nothing.", "Train it: pipe train --force")
    return counts.most_common(1)[0][0]


def _places(pairs: list[_Pair]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for pair in pairs:
        for suffix, shape in zip(("lora_a", "lora_b"), pair.shapes(), strict=True):
            yield f"{pair.name}.{suffix}", shape
