"""Gates and scores: is it served as it was trained, and how good is it?"""

from pipeline.evaluate.gates import check
from pipeline.evaluate.score import evaluate

__all__ = ["check", "evaluate"]
