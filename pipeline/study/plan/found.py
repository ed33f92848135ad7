"""The base of a recipe without fetching anything: its folder, the hub's cache, or the catalogue."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.assets import PREFIX, locate
from pipeline.base import base_at, open_base
from pipeline.errors import PipeError
from pipeline.recipe.schema import Model
from pipeline.study.plan.catalogue import Known, catalogue
from pipeline.study.plan.shapes import Shape, shape_of

Origin = Literal["folder", "hub cache", "catalogue"]


@dataclass(frozen=True)
class Found:
    """A base's shape, and where it is known from."""

    name: str
    origin: Origin
    shape: Shape
    folder: Path | None
    """Where its files lie; None where only the catalogue knows it."""
    known: Known | None
    """Its entry in the catalogue, if it has one."""

    @property
    def is_here(self) -> bool:
        """Whether its weights need no download."""
        return self.folder is not None and any(self.folder.glob("*.safetensors"))

    @property
    def context(self) -> int:
        """Tokens that it was trained for, as far as it is known."""
        return self.known.context if self.known else self.shape.architecture.context

    def as_json(self) -> dict[str, Any]:
        model, known = self.shape.architecture, self.known
        return {
            "name": self.name,
            "from": self.origin,
            "parameters": self.shape.parameters,
            "count": "published" if known and known.published else "computed",
            "licence": known.licence if known else None,
            "context": self.context,
            "layers": model.layers,
            "hidden": model.hidden,
            "intermediate": model.intermediate,
            "heads": model.heads,
            "kv_heads": model.kv_heads,
            "head_dim": model.head_dim,
            "vocab": model.vocab,
            "tied": model.tied,
        }


def found_base(model: Model) -> Found:
    """The recipe's base, asking no server.

    Raises PipeError for a folder without a model, for one that is not tuned here, and for a hub id
    that neither the cache nor the catalogue holds.
    """
    known = catalogue().find(model.base)
    if (folder := _folder(model)) is not None:
        base = open_base(model) if not _is_cached(folder) else base_at(folder)
        origin: Origin = "hub cache" if _is_cached(folder) else "folder"
        return Found(model.base, origin, shape_of(base.config), folder, known)
    if known is None:
        raise PipeError(
            f"The base {model.base} is neither a folder, nor in the hub's cache, nor in the "
            "catalogue: its shape is not known here.",
            "See what is: pipe plan --use chat --vram 24; pipe prepare fetches its config.json.",
        )
    return Found(model.base, "catalogue", known.shape, None, known)


def _folder(model: Model) -> Path | None:
    """The base's folder where it is on this disk: named, shipped, or in the hub's cache."""
    path = locate(model.base)
    if model.base.startswith((PREFIX, ".", "/", "~")) or path.is_dir():
        return path
    return _cached(model)


def _cached(model: Model) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model.base, "config.json", revision=model.revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _is_cached(folder: Path) -> bool:
    return folder.parent.name == "snapshots"
