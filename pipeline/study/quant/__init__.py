"""What each precision costs: one model's weights under every method, measured alike."""

from pipeline.study.quant.results import in_words, last
from pipeline.study.quant.study import Wish, planned, quantize

__all__ = ["Wish", "in_words", "last", "planned", "quantize"]
