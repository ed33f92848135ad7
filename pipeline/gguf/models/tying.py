"""Whether a model's output is its embedding, as Transformers decides when it loads one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.gguf.models.architecture import EMBEDDING, HEAD

if TYPE_CHECKING:
    from pipeline.gguf.weights.checkpoint import Checkpoint


def as_loaded(config: Mapping[str, Any], base: Checkpoint) -> dict[str, Any]:
    """config.json, with tie_word_embeddings false where the checkpoint belies it.

    Two stored tensors that differ are not tied (PreTrainedModel.tie_weights); where they are the
    same, or only the embedding is stored, the configuration stands.
    """
    stored = EMBEDDING in base and HEAD in base
    if not config.get("tie_word_embeddings") or not stored:
        return dict(config)
    same = base.read(EMBEDDING).same_values(base.read(HEAD))
    return {**config, "tie_word_embeddings": same}
