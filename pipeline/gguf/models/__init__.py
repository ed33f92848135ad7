"""Models in GGUF: the architecture, the vocabulary, and what the file says about itself."""

from pipeline.gguf.models.architecture import Architecture, Placed, architecture_of
from pipeline.gguf.models.control import ControlTokens, own_chat_template
from pipeline.gguf.models.licence import License
from pipeline.gguf.models.metadata import (
    Description,
    Origin,
    describe,
    describe_adapter,
    name_parts,
    own_sampling,
    size_label,
)
from pipeline.gguf.models.tying import as_loaded
from pipeline.gguf.models.vocabulary import Vocabulary

__all__ = [
    "Architecture",
    "ControlTokens",
    "Description",
    "License",
    "Origin",
    "Placed",
    "Vocabulary",
    "architecture_of",
    "as_loaded",
    "describe",
    "describe_adapter",
    "name_parts",
    "own_chat_template",
    "own_sampling",
    "size_label",
]
