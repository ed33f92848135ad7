"""The recipe: what to train on what, and how."""

from pipeline.recipe.load import DEFAULT, Loaded, builtin_names, dump, load
from pipeline.recipe.schema import Recipe, Source

__all__ = ["DEFAULT", "Loaded", "Recipe", "Source", "builtin_names", "dump", "load"]
