"""What is to be published where, as it was asked for."""

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import RecipeError

Only = Literal["adapter", "gguf"]

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}")
_LONGEST = 96
"""Characters of a repository's name: huggingface_hub's validate_repo_id."""


@dataclass(frozen=True)
class Wish:
    """Raises RecipeError for what cannot be a repository's name."""

    repository: str
    private: bool = False
    only: Only | None = None
    force: bool = False
    """Publish though a check failed or a licence of the data forbids it."""

    def __post_init__(self) -> None:
        name = self.repository
        fits = _REPOSITORY.fullmatch(name) and len(name) <= _LONGEST
        if not fits or "--" in name or ".." in name or name.endswith(".git"):
            raise RecipeError(
                f"The hub has no repository names like {name!r}.",
                "Write it as OWNER/NAME, of letters, digits, `-`, `_` and `.`: me/Llama-3.2-r1",
            )

    @property
    def name(self) -> str:
        return self.repository.rpartition("/")[2]
