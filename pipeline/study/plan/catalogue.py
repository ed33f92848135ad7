"""The catalogue of models: licence, context length, exact shape; and what each use needs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from pipeline.study.plan.shapes import Shape, shape_of

_FILE = Path(__file__).with_name("catalogue.yaml")


@dataclass(frozen=True)
class Known:
    """One model of the catalogue."""

    base: str
    """Hub id of the weights that a recipe would name."""
    name: str
    """A regular expression of the model's own name, without its owner."""
    licence: str
    context: int
    """Tokens that it was trained for."""
    card: str
    """Parameters as its model card rounds them."""
    format: str
    """The chat format that fits its tokenizer."""
    config: Mapping[str, Any]
    published: int | None = None
    """Parameters as its authors' files have them; None where they are computed from the shape."""

    @property
    def title(self) -> str:
        return self.base.rpartition("/")[2]

    @cached_property
    def shape(self) -> Shape:
        return shape_of(self.config)


@dataclass(frozen=True)
class Use:
    """What a use of a tuned model asks of it, and how it is usually trained."""

    name: str
    prefer: tuple[str, ...]
    """Families (`model_type`), the one that suits best first."""
    min_parameters: float
    max_seq_length: int
    """Tokens of a training row."""
    batch_size: int
    rank: int
    why: str


@dataclass(frozen=True)
class Catalogue:
    models: tuple[Known, ...]
    out_of_scope: tuple[Mapping[str, str], ...]
    """Models that are not tuned here: `name` and `why`."""
    uses: Mapping[str, Use]

    def find(self, base: str) -> Known | None:
        """The model that a hub id or a path names, whoever holds a copy of it."""
        title = re.split(r"[/:]", base.rstrip("/"))[-1]
        found = (m for m in self.models if re.fullmatch(m.name, title, re.IGNORECASE))
        return next(found, None)


@cache
def catalogue() -> Catalogue:
    """The packaged catalogue.yaml."""
    values = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    uses = {
        name: Use(name, tuple(each.pop("prefer")), **each) for name, each in values["uses"].items()
    }
    models = tuple(Known(**each) for each in values["models"])
    return Catalogue(models, tuple(values["out_of_scope"]), uses)
