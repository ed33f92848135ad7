"""From the tensors of one module to the steps that change its weight and bias."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.errors import PipeError
from pipeline.gguf.weights.changes import AddedBias, Dora, LowRank, Replaced, Step, TrainedRows
from pipeline.gguf.weights.checkpoint import Checkpoint, Stored
from pipeline.gguf.weights.peft_config import MERGE_IN_PEFT, PeftConfig
from pipeline.gguf.weights.saved import Saved

RESIZABLE = ("model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class Steps:
    """`base` stands in for the base's own tensor, which tied modules share; `own` is the rest.

    Steps that change nothing are left out.
    """

    base: tuple[Step, ...]
    own: tuple[Step, ...]
    shape: tuple[int, ...]
    """Of the tensor after these steps."""


class StepReader:
    """Reads steps and checks that they fit the base.

    `initial` is what the modules held before training, for a residual initialisation.
    """

    def __init__(
        self, peft: PeftConfig, base: Checkpoint, initial: Mapping[str, Saved] | None
    ) -> None:
        self._peft, self._base, self._initial = peft, base, initial

    def weight(self, saved: Saved, source: str) -> Steps:
        """What changes the module's weight; `source` is the base tensor that it starts from."""
        weight = self._stored(source)
        base: list[Step] = []
        own: list[Step] = []
        # modules_to_save trains a copy; what save_embedding_layers saves is the base's own
        level = own if self._peft.saves(saved.module) else base
        for part, steps in (("base_layer.weight", base), ("weight", level)):
            if part in saved:
                values = self._whole(saved, part, weight)
                if not values.same_values(weight):
                    steps.append(Replaced(values))
                    weight = values
        own += self._low_rank(saved, weight.shape)
        if "trainable_tokens_delta" in saved:
            own += self._tokens(saved, weight)
        return Steps(tuple(base), tuple(own), weight.shape)

    def bias(self, saved: Saved) -> Steps:
        """What changes the module's bias. Raises PipeError where the base has none."""
        source = f"{saved.module}.bias"
        before = self._stored(source)
        steps: list[Step] = []
        for part in ("base_layer.bias", "bias"):
            if part in saved:
                values = self._whole(saved, part, before)
                steps += [Replaced(values)] if not values.same_values(before) else []
        if "lora_B.bias" in saved and self._peft.lora_bias:
            values = self._fitting(saved, "lora_B.bias", source, before.shape)
            scale = self._peft.scale_of(saved.module)
            steps += [AddedBias(values, scale)] if scale and values.any() else []
        return Steps(tuple(steps), (), before.shape)

    def _stored(self, source: str) -> Stored:
        if source not in self._base:
            raise PipeError(
                f"The adapter changes {source}, which the base lacks.",
                "Name the base that it was trained on.",
            )
        return self._base.read(source)

    def _whole(self, saved: Saved, part: str, before: Stored) -> Stored:
        name = f"{saved.module}.{part.rpartition('.')[2]}"
        values = saved.take(part)
        resizable = name in RESIZABLE and len(values.shape) == 2 and values.shape[0] > 0
        expected = (values.shape[0], *before.shape[1:]) if resizable else before.shape
        return _fit(name, values, values.shape, expected)

    def _fitting(self, saved: Saved, part: str, name: str, expected: tuple[int, ...]) -> Stored:
        values = saved.take(part)
        return _fit(name, values, values.shape, expected)

    def _low_rank(self, saved: Saved, shape: tuple[int, ...]) -> list[Step]:
        scale = self._peft.scale_of(saved.module)
        pair = self._pair(saved, shape, scale)
        if pair is None:
            return []
        undone: list[LowRank] = []
        trained = pair.a.any() and pair.b.any()
        if self._initial is not None:
            first = self._first(saved.module, shape, scale)
            trained = not (first.a.same_values(pair.a) and first.b.same_values(pair.b))
            undone = [LowRank(first.a, first.b, -first.scale)]
        if not self._peft.dora:
            return [step for step in (*undone, pair) if step.scale] if trained else []
        name = f"{saved.module}'s magnitude"
        magnitude = self._fitting(saved, "lora_magnitude_vector", name, shape[:1])
        # B is zero only before training, and the magnitude is then the norm of the base's rows
        return [*undone, Dora(pair, magnitude)] if trained else []

    def _pair(self, saved: Saved, shape: tuple[int, ...], scale: float) -> LowRank | None:
        if "lora_A" in saved or "lora_B" in saved:
            pair = LowRank(saved.take("lora_A"), saved.take("lora_B"), scale)
        elif "lora_embedding_A" in saved or "lora_embedding_B" in saved:
            if self._peft.dora:
                raise PipeError("The adapter uses DoRA on an embedding.", MERGE_IN_PEFT)
            # Embedding.get_delta_weight: (B @ A).T
            a, b = saved.take("lora_embedding_A"), saved.take("lora_embedding_B")
            pair = LowRank(b.transposed(), a.transposed(), scale)
        else:
            return None
        self._check_pair(saved.module, pair, shape)
        return pair

    def _check_pair(self, module: str, pair: LowRank, shape: tuple[int, ...]) -> None:
        if len(pair.a.shape) != 2 or len(pair.b.shape) != 2:
            raise PipeError(
                f"The adapter's A and B of {module} are {list(pair.a.shape)} and "
                f"{list(pair.b.shape)}, no matrices.",
                "Gather the sharded parameters before saving (DeepSpeed ZeRO-3, FSDP).",
            )
        rank = self._peft.rank_of(module)
        if (pair.a.shape[0], pair.b.shape[1]) != (rank, rank):
            raise PipeError(
                f"{module} has A {list(pair.a.shape)} and B {list(pair.b.shape)}, and rank {rank} "
                "by adapter_config.json.",
                "The configuration and the weights are of different adapters: save both again.",
            )
        _fit(f"{module}.weight", pair.a, (pair.b.shape[0], pair.a.shape[1]), shape)

    def _first(self, module: str, shape: tuple[int, ...], scale: float) -> LowRank:
        saved = (self._initial or {}).get(module)
        # loftq_init leaves the scale out of its decomposition; the others have it in
        pair = saved and self._pair(saved, shape, 1.0 if self._peft.residual == "loftq" else scale)
        if not pair:
            raise PipeError(
                f"The initial adapter lacks {module}.", "Save the one that training began with."
            )
        return pair

    def _tokens(self, saved: Saved, weight: Stored) -> list[Step]:
        # a head that is tied to the embedding trains the embedding's tokens
        ids = self._peft.tokens_of(saved.module) or self._peft.tokens_of("model.embed_tokens")
        tokens = np.array(ids or [], np.int64)
        rows = weight.shape[0] if weight.shape else 0
        name, shape = f"{saved.module}'s trained tokens", (len(tokens), *weight.shape[1:])
        values = self._fitting(saved, "trainable_tokens_delta", name, shape)
        if tokens.max(initial=0) >= rows:
            raise PipeError(
                f"The adapter trains token {tokens.max()}; {saved.module} has {rows} rows.",
                "Save the resized embeddings too: save_pretrained(save_embedding_layers=True).",
            )
        order = np.argsort(tokens)
        trained = TrainedRows(tokens[order], order, values)
        same = np.array_equal(values.float32(order), weight.float32(trained.tokens))
        return [] if same else [trained]


def _fit(name: str, values: Stored, found: tuple[int, ...], expected: tuple[int, ...]) -> Stored:
    if found != expected:
        raise PipeError(
            f"The adapter does not fit the base: {name} is {list(expected)} there and "
            f"{list(found)} in the adapter.",
            "Name the base that it was trained on.",
        )
    return values
