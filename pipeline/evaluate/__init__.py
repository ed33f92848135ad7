"""Scores: how good is it, before and after, and how sure is that?"""

from pipeline.evaluate.stage import Means, evaluate
from pipeline.evaluate.words import in_words, published

__all__ = ["Means", "evaluate", "in_words", "published"]
