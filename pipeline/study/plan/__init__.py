"""Plan: memory, disk and time of a training before it begins, and which model to take."""

from pipeline.study.plan.advice import ADVICE, Advice
from pipeline.study.plan.catalogue import catalogue
from pipeline.study.plan.choose import Choice, choices
from pipeline.study.plan.memory import Memory, Setting, memory_of
from pipeline.study.plan.plan import Plan, plan
from pipeline.study.plan.shapes import Shape, shape_of

__all__ = [
    "ADVICE",
    "Advice",
    "Choice",
    "Memory",
    "Plan",
    "Setting",
    "Shape",
    "catalogue",
    "choices",
    "memory_of",
    "plan",
    "shape_of",
]
