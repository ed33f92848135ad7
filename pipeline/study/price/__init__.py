"""Prices in dollars: the base at each precision against the tuned model, and their tokenizers."""

from pipeline.study.price.measured import measure
from pipeline.study.price.tokenizers import study

__all__ = ["measure", "study"]
