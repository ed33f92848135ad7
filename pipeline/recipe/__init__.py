"""The recipe: what to train on what, and how."""

from pipeline.recipe.load import DEFAULT, Loaded, builtin_names, dump, load
from pipeline.recipe.overlay import leaves, written
from pipeline.recipe.schema import Benchmark, Columns, Dedupe, Filters, Recipe, Source

__all__ = [
    "DEFAULT",
    "Benchmark",
    "Columns",
    "Dedupe",
    "Filters",
    "Loaded",
    "Recipe",
    "Source",
    "builtin_names",
    "dump",
    "leaves",
    "load",
    "written",
]
