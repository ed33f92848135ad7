"""Find a recipe, follow `extends`, lay `--set` over it, and name every wrong key."""

import difflib
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.errors import RecipeError
from pipeline.recipe.overlay import Overlay, Values, leaves
from pipeline.recipe.schema import Recipe

DEFAULT = "llama3.2-3b-r1"
LOCAL = Path("pipe.yaml")
_BUILTIN = Path(__file__).parent / "builtin"


@dataclass(frozen=True)
class Loaded:
    recipe: Recipe
    values: Mapping[str, Any]
    """Dotted key -> value, every default filled in; an item of a list of sections by its number."""
    origins: Mapping[str, str]
    """Dotted key -> the file, `--set` or `default` that gave its value."""


def builtin_names() -> list[str]:
    return sorted(path.stem for path in _BUILTIN.glob("*.yaml"))


def choose(reference: str | None) -> str:
    """The recipe meant: the option, else $PIPE_RECIPE, else ./pipe.yaml, else the default."""
    if chosen := reference or os.environ.get("PIPE_RECIPE"):
        return chosen
    return str(LOCAL) if LOCAL.exists() else DEFAULT


def load(reference: str | None = None, overrides: Iterable[str] = ()) -> Loaded:
    """The validated recipe.

    Raises RecipeError naming every wrong key at once, with the nearest right name.
    """
    overlay, layers = Overlay(), _layers(choose(reference))
    see = f"See: pipe recipes show {_whole(path for path, _ in layers[::-1])}"
    try:
        for path, layer in layers:
            overlay.add(layer, path.name)
        for text in overrides:
            overlay.add(_parse_override(text), "--set")
        recipe = Recipe.model_validate(overlay.values)
    except ValidationError as error:
        raise RecipeError(_explain(error), see) from None
    except RecipeError as error:
        raise RecipeError(error.message, error.hint or see) from None
    values = dict(leaves(recipe.model_dump(mode="json")))
    return Loaded(recipe, values, {key: overlay.origins.get(key, "default") for key in values})


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every default filled in."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _layers(reference: str) -> list[tuple[Path, Values]]:
    """The chain of `extends`, base first."""
    layers: list[tuple[Path, Values]] = []
    seen: set[Path] = set()
    here = Path.cwd()
    next_reference: str | None = reference
    while next_reference:
        path = _find(next_reference, here).resolve()
        if path in seen:
            raise RecipeError(f"Recipe {path} extends itself.", "Remove one `extends`.")
        seen.add(path)
        values = _read(path)
        next_reference = values.pop("extends", None)
        here = path.parent
        layers.append((path, values))
    return layers[::-1]


def _whole(chain: Iterable[Path]) -> str:
    """The first built-in recipe of these files, to be shown where one of them is wrong."""
    return next((path.stem for path in chain if path.parent == _BUILTIN), DEFAULT)


def _find(reference: str, here: Path) -> Path:
    for path in (here / reference, _BUILTIN / f"{reference}.yaml"):
        if path.is_file():
            return path
    near = difflib.get_close_matches(reference, builtin_names(), 1)
    suggestion = f"Did you mean {near[0]}? " if near else ""
    raise RecipeError(
        f"No recipe {reference}: no such file, no built-in of that name.",
        f"{suggestion}See: pipe recipes",
    )


def _read(path: Path) -> Values:
    here = Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    then = f"then: pipe recipes validate {shlex.quote(str(shown))}"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        message = f"{shown}, line {line}: {error.problem}."
        raise RecipeError(message, f"Correct that line, {then}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{shown} cannot be read: {error}", f"Correct it, {then}") from None
    if not isinstance(values, dict):
        hint = f"Begin it with `extends: {DEFAULT}`, {then}"
        raise RecipeError(f"{shown} is not a mapping of keys.", hint)
    return values


def _parse_override(text: str) -> Values:
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise RecipeError(f"--set {text}: write it as section.key=value.", "Like: --set lora.r=32")
    try:
        parsed: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"--set {text}: the value is not YAML.", "Quote it.") from None
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    return dict(parsed)


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        location = [part for part in problem["loc"] if isinstance(part, str)]
        dotted = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(location[-1], _fields_at(location[:-1]), 1)
            lines.append(f"unknown key {dotted}" + (f", did you mean {near[0]}?" if near else ""))
        else:
            said = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{dotted or 'recipe'}: {said}")
    return "The recipe does not hold: " + "; ".join(lines)


def _fields_at(location: list[str]) -> list[str]:
    """The keys that the section at `location` knows, walking the model's annotations."""
    model: type[BaseModel] = Recipe
    for part in location:
        field = model.model_fields.get(part)
        inner = _section_in(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_in(argument) for argument in get_args(annotation))
    return next((section for section in found if section), None)
