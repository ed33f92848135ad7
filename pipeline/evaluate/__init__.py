"""Scores: how good is it, before and after?"""

from pipeline.evaluate.score import evaluate

__all__ = ["evaluate"]
