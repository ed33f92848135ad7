"""Variants of a recipe, trained and asked alike, and one table of what came of them."""

from pipeline.study.compare.plan import Comparison, expected_seconds, planned
from pipeline.study.compare.results import last
from pipeline.study.compare.work import compare

__all__ = ["Comparison", "compare", "expected_seconds", "last", "planned"]
