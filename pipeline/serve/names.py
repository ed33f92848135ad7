"""What the models are called in Ollama, and which of those there were made by a run of ours."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import ChangedInput, RecipeError
from pipeline.run import Manifest, Run
from pipeline.run.manifest import read_manifest

_PART = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"
_NAME = re.compile(rf"({_PART}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{{0,79}}")
_FROM = re.compile(r"^FROM (?P<path>.*sha256[-:](?P<digest>[0-9a-f]{64}))\s*$", re.MULTILINE)


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


def model_blob(shown: Mapping[str, Any]) -> tuple[str, str]:
    """Path on the server and digest (`sha256:` + hex) of a shown model's weights.

    Both are empty for a model without a GGUF of its own, such as one that runs in the cloud.
    """
    found = _FROM.search(str(shown.get("modelfile", "")))
    return (found["path"], f"sha256:{found['digest']}") if found else ("", "")


def our_digests(run: Run, exported: Manifest) -> set[str]:
    """Weights that this export or any run beside it gave to Ollama."""
    ours = {f"sha256:{entry.sha256}" for entry in exported.outputs.values()}
    for path in run.root.parent.glob("*/serve/manifest.json"):
        try:
            manifest = read_manifest(path.parent)
        except ChangedInput:
            continue
        models = manifest.facts.get("models", []) if manifest else []
        ours.update(str(model["digest"]) for model in models)
    return ours
