"""Find a recipe, follow `extends`, lay `--set` over it, and say where each value came from."""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.errors import RecipeError
from pipeline.recipe.schema import Recipe

DEFAULT = "llama3.2-3b-r1"
LOCAL = Path("pipe.yaml")
_BUILTIN = Path(__file__).parent / "builtin"

Values = dict[str, Any]


@dataclass(frozen=True)
class Loaded:
    recipe: Recipe
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
    values: Values = {}
    origins: dict[str, str] = {}
    for source, layer in _layers(choose(reference)):
        _lay_over(values, layer, source, origins)
    for text in overrides:
        _lay_over(values, _parse_override(text), "--set", origins)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(_explain(error), "See: pipe recipes show NAME") from None
    for key in _leaves(recipe.model_dump(mode="json")):
        origins.setdefault(key, "default")
    return Loaded(recipe, origins)


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every default filled in."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _layers(reference: str) -> list[tuple[str, Values]]:
    """The chain of `extends`, base first."""
    layers: list[tuple[str, Values]] = []
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
        layers.append((path.name, values))
    return layers[::-1]


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
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read: {error}", "Write one: pipe init") from None
    if not isinstance(values, dict):
        raise RecipeError(f"Recipe {path} is not a mapping of keys.", "Write one: pipe init")
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


def _lay_over(
    values: Values, layer: Values, source: str, origins: dict[str, str], prefix: str = ""
) -> None:
    for key, value in layer.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _lay_over(values[key], value, source, origins, f"{dotted}.")
            continue
        by_number = isinstance(value, dict) and isinstance(values.get(key), list)
        values[key] = _with_items(values[key], value, dotted) if by_number else value
        for old in [o for o in origins if o == dotted or o.startswith(f"{dotted}.")]:
            del origins[old]
        for leaf in _leaves({key: values[key]}, prefix):
            origins[leaf] = source


def _with_items(items: list[Any], changes: Values, dotted: str) -> list[Any]:
    """The list with `--set list.0.key=value` laid over its items, which count from 0."""
    changed = [dict(item) if isinstance(item, dict) else item for item in items]
    for number, value in changes.items():
        if not (number.isdecimal() and int(number) < len(items)):
            raise RecipeError(f"{dotted} has no item {number}; it has {len(items)}, from 0 on.")
        item = changed[int(number)]
        if isinstance(item, dict) and isinstance(value, dict):
            item.update(value)
        else:
            changed[int(number)] = value
    return changed


def _leaves(values: Values, prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        location = [part for part in problem["loc"] if isinstance(part, str)]
        dotted = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(location[-1], _fields_at(location[:-1]), 1)
            lines.append(f"unknown key {dotted}" + (f", did you mean {near[0]}?" if near else ""))
        else:
            lines.append(f"{dotted or 'recipe'}: {problem['msg']}")
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
