"""What the models are called in Ollama."""

import re
from collections.abc import Iterable

from pipeline.errors import RecipeError

_PART = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"
_NAME = re.compile(rf"({_PART}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{{0,79}}")
_SPARE = "before-register"


def model_names(name: str, types: Iterable[str]) -> dict[str, str]:
    """Quantization type -> model: the first gets the plain name, the others their type as tag.

    Raises RecipeError for a name that Ollama would refuse, or send to its cloud.
    """
    plain, _, tag = name.partition(":")
    if tag.lower() in {"cloud", "local"} or tag.lower().endswith("-cloud"):
        raise RecipeError(
            f"The model name {name} ends in a tag that Ollama takes for a place, not a model.",
            "Use another name: --name NAME or serve.name",
        )
    if not _NAME.fullmatch(plain) or (":" in name and not _NAME.fullmatch(f"x/{tag}")):
        raise RecipeError(
            f"Ollama has no model names like {name!r}.",
            "Use letters, digits, `_`, `-` and `.`, at most 80: my-model, me/my-model, my-model:v2",
        )
    first, *others = types
    suffix = f"{tag}-" if tag else ""
    return {first: name} | {kind: f"{plain}:{suffix}{kind.lower()}" for kind in others}


def spare_name(name: str) -> str:
    """What the model of that name is called while another is made in its place."""
    plain, _, tag = name.partition(":")
    return f"{plain}:{tag[:60]}-{_SPARE}" if tag else f"{plain}:{_SPARE}"
