"""Weights as stored: the base's tensors, and what an adapter changes in them."""

from pipeline.gguf.weights.adapter import Adapter, load_adapter
from pipeline.gguf.weights.changes import Change
from pipeline.gguf.weights.checkpoint import Checkpoint, Stored

__all__ = ["Adapter", "Change", "Checkpoint", "Stored", "load_adapter"]
