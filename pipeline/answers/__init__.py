"""Is an answer right, and is it certainly wrong? By text, by number, and by math-verify."""

from pipeline.answers.match import exact_match
from pipeline.answers.refute import refutes

__all__ = ["exact_match", "refutes"]
