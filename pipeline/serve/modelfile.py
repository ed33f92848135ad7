"""The Modelfile: what `ollama create` needs beside the GGUF."""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.assets import asset
from pipeline.chat import ChatFormat
from pipeline.errors import PipeError
from pipeline.recipe import Recipe

UNKNOWN_LICENSE = "unknown: see the base model's card"
_GGUF_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*\.gguf", re.ASCII)
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\s*\n", re.DOTALL)


def parameters(recipe: Recipe, format: ChatFormat) -> dict[str, Any]:
    """Ollama's parameters, for the Modelfile and for the create request alike."""
    return {
        "stop": list(format.stops),
        "temperature": recipe.serve.temperature,
        "top_p": recipe.serve.top_p,
        "repeat_penalty": recipe.serve.repeat_penalty,
        "num_ctx": recipe.num_ctx,
    }


def modelfile(recipe: Recipe, format: ChatFormat | None, gguf_name: str, license: str) -> str:
    """The Modelfile of one GGUF, which lies in the same folder.

    Without a format, Ollama takes the chat template that the file carries.
    Raises PipeError for a value that would end its own quotes: a Modelfile has no escapes.
    """
    if not _GGUF_NAME.fullmatch(gguf_name):
        raise PipeError(
            f"{gguf_name!r} cannot stand in a Modelfile's FROM.",
            "Use letters, digits, `.`, `_` and `-` in the recipe's name.",
        )
    values: dict[str, Any] = {"num_ctx": recipe.num_ctx}
    if format:
        values = parameters(recipe, format)
    stops: list[str] = values.pop("stop", [])
    template = format.ollama_template if format else None
    for text in (template or "", license):
        _check_quotable(text, '"""')
    for stop in stops:
        _check_quotable(stop, '"', "\n")
    source = asset("modelfiles/Modelfile.jinja").read_text(encoding="utf-8")
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(source).render(
        gguf=gguf_name, template=template, stops=stops, parameters=values, license=license
    )


def license_text(recipe: Recipe, base_folder: Path) -> str:
    """The recipe's license, else the base's: its LICENSE file, or what its card says."""
    if stated := (recipe.serve.license or "").strip():
        return stated
    for path in sorted(base_folder.glob("LICENSE*")):
        if path.is_file() and (text := _text_of(path)):
            return text
    return _declared(base_folder) or UNKNOWN_LICENSE


def _declared(folder: Path) -> str:
    """The `license` of config.json or of the README's front matter."""
    card = _FRONT_MATTER.match(_text_of(folder / "README.md") + "\n")
    try:
        config = json.loads(_text_of(folder / "config.json") or "{}")
        front = yaml.safe_load(card[1]) if card else {}
    except (ValueError, yaml.YAMLError):
        return ""
    found = (values.get("license") for values in (config, front) if isinstance(values, dict))
    return next((text.strip() for text in found if isinstance(text, str)), "")


def _text_of(path: Path) -> str:
    if not path.is_file():
        return ""
    return path.read_text(encoding="utf-8", errors="replace").strip()


def _check_quotable(text: str, *refused: str) -> None:
    for mark in refused:
        if mark in text:
            raise PipeError(
                f"A Modelfile cannot hold the text {text[:60]!r}: it contains {mark!r}.",
                "Set serve.license to a name such as llama3.2, or mend the template.",
            )
