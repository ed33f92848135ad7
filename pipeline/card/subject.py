"""What a card is about: a model's name and base, its data, and the files that are passed on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.assets import PREFIX
from pipeline.card.public import public_name
from pipeline.card.results import Measured
from pipeline.recipe import Recipe
from pipeline.run import Entry

Form = Literal["adapter", "model", "gguf"]
Sources = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Publication:
    """What a card says beyond its base and its data. Empty parts are left out of it."""

    repository: str
    """OWNER/NAME on the hub."""
    files: Mapping[str, Entry]
    """Path in the repository -> file, the card itself not among them."""
    types: Mapping[str, str]
    """Quantization type -> path in the repository, the recommended one first."""
    recipe: str
    """As YAML, fit to be read by anyone."""
    base_revision: str | None
    """Commit of the base on the hub; None for one that lies on this machine."""
    trained: Mapping[str, Any] = field(default_factory=dict)
    """The train manifest's facts, with `steps`."""
    measured: Measured | None = None
    gates: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True)
class Subject:
    recipe: Recipe
    sources: Sources
    published: Publication | None

    @property
    def name(self) -> str:
        if self.published is None:
            return self.recipe.serve.name
        return self.published.repository.rpartition("/")[2]

    @property
    def form(self) -> Form:
        """An adapter stands before the GGUFs beside it: it is what other programs load."""
        files = self.published.files if self.published else {}
        if "adapter_config.json" in files:
            return "adapter"
        return "model" if "config.json" in files else "gguf"

    @property
    def has_gguf(self) -> bool:
        return self.published is None or bool(self.published.types)

    @property
    def base_title(self) -> str:
        """What the base is called here: its hub id, or the last part of its path."""
        return public_name(self.recipe.model.base, on_hub=self._on_hub)

    @property
    def base_id(self) -> str | None:
        """The base on the hub; None where it is a folder of this machine."""
        base = self.recipe.model.base
        local = base.startswith((PREFIX, ".", "/", "~")) or base.count("/") != 1
        on_hub = not local if self._on_hub is None else self._on_hub
        return base if on_hub else None

    @property
    def datasets(self) -> list[str]:
        """Those on the hub, each once."""
        return list(dict.fromkeys(each["dataset"] for each in self.sources if each.get("revision")))

    @property
    def languages(self) -> list[str]:
        """ISO 639-1 codes, where every source of the recipe is filtered by them."""
        data = self.recipe.data
        kept = [set((each.filters or data.filters).languages) for each in data.sources]
        return sorted(set().union(*kept)) if all(kept) else []

    @property
    def _on_hub(self) -> bool | None:
        return None if self.published is None else self.published.base_revision is not None
