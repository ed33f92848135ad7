"""`--vary key=a,b,c`: the keys that are meant, their values, and the variants these make."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.errors import RecipeError
from pipeline.recipe import DEFAULT, Recipe, leaves
from pipeline.recipe.training import UNSEEN

_DECIDING = ("seed", "model", "data", "chat", "train")
"""What of a recipe decides what is learned."""
_SEE = f"See: pipe recipes show {DEFAULT}"
"""Which has every key."""
_LONGEST = 24
"""Characters of a value in a label."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_.+-]+")


@dataclass(frozen=True)
class Variant:
    """The recipe with one value for each key that varies; or why it cannot be had."""

    label: str
    """Names it to people, and its run's folder."""
    settings: Mapping[str, Any]
    """Dotted key -> value."""
    recipe: Recipe | None
    reason: str | None = None


def variants(recipe: Recipe, texts: Sequence[str]) -> list[Variant]:
    """The product of what the texts name, the first key varying slowest.

    A combination that the recipe refuses is there with its reason. Raises RecipeError for a key
    that is unknown, ambiguous, named twice or of no effect, for one value alone, for a value that
    stands there twice, and for one that its key cannot have.
    """
    keys = _keys(recipe)
    parsed = [_parsed(text, keys) for text in texts]
    names = [key for key, _ in parsed]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(f"--vary names {twice} twice.", "Name all its values in one --vary.")
    short = {name: _shortest(name, keys) for name in names}
    found: list[Variant] = []
    for values in product(*(values for _, values in parsed)):
        settings = dict(zip(names, values, strict=True))
        variant = _variant(recipe, settings)
        if any(variant.settings == each.settings for each in found):
            raise RecipeError(f"--vary names {_said(variant.settings)} twice.", "Name it once.")
        label = _free(_label(variant.settings, short), [each.label for each in found])
        found.append(replace(variant, label=label))
    return found


def varied(variants: Sequence[Variant]) -> dict[str, list[Any]]:
    """Dotted key -> its values, in the order they were named in."""
    found: dict[str, list[Any]] = {}
    for variant in variants:
        for key, value in variant.settings.items():
            values = found.setdefault(key, [])
            if value not in values:
                values.append(value)
    return found


def _parsed(text: str, keys: Sequence[str]) -> tuple[str, list[Any]]:
    """The full key and its values: what YAML makes of `[a,b,c]`."""
    name, equals, written = text.partition("=")
    if not (equals and name):
        raise RecipeError(f"--vary {text}: write it as key=a,b,c.", "Like: --vary lora.r=8,16,32")
    key = _resolved(name, keys)
    try:
        values = yaml.safe_load(f"[{written}]")
    except yaml.YAMLError:
        raise RecipeError(f"--vary {text}: the values are not YAML.", "Quote them.") from None
    if len(values) < 2:
        raise RecipeError(
            f"--vary {text}: one value leaves nothing to compare.",
            f"Name two or more; to set it for all: --set {key}={written or 'VALUE'}",
        )
    return key, values


def _resolved(name: str, keys: Sequence[str]) -> str:
    """The full key: the name itself, or the only one that ends with it."""
    if name in keys:
        return name
    found = [key for key in keys if key.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise RecipeError(f"--vary {name} may mean {' or '.join(found)}.", "Name the whole key.")
    section = name.partition(".")[0]
    if section in Recipe.model_fields and section not in _DECIDING:
        raise RecipeError(
            f"--vary {name}: it decides nothing of what is trained.",
            f"Set it for all variants: --set {name}=VALUE. What each precision costs: pipe quant",
        )
    tails = {tail for key in keys for tail in _tails(key)}
    near = difflib.get_close_matches(name, sorted(tails), 1)
    suggestion = f"Did you mean {near[0]}? " if near else ""
    raise RecipeError(f"--vary {name}: there is no such key to vary.", f"{suggestion}{_SEE}")


def _keys(recipe: Recipe) -> list[str]:
    """The dotted keys that decide what is learned; items of a list of sections by their number."""
    values = recipe.model_dump(mode="json", include=set(_DECIDING))
    return [key for key, _ in leaves(values) if key.removeprefix("train.") not in UNSEEN]


def _variant(recipe: Recipe, settings: Mapping[str, Any]) -> Variant:
    """Without a label yet; the values as the recipe has them where it takes them."""
    values = recipe.model_dump(mode="json")
    for key, value in settings.items():
        _put(values, key, value)
    try:
        made = Recipe.model_validate(values)
    except ValidationError as error:
        return Variant("", settings, None, _refusal(error, settings))
    held = made.model_dump(mode="json")
    return Variant("", {key: _get(held, key) for key in settings}, made)


def _refusal(error: ValidationError, settings: Mapping[str, Any]) -> str:
    """Why the values do not go together. Raises RecipeError for one that its key cannot have."""
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        key = next((key for key in settings if f"{where}.".startswith(f"{key}.")), None)
        if key is not None:
            raise RecipeError(
                f"--vary {key}: it cannot be {_shown(settings[key])}: {problem['msg']}.",
                _SEE,
            )
    told = (str(problem["msg"]).removeprefix("Value error, ") for problem in error.errors())
    return "; ".join(told)


def _get(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[int(part)] if isinstance(values, list) else values[part]
    return values


def _put(values: Any, key: str, value: Any) -> None:
    *path, last = key.split(".")
    inner = _get(values, ".".join(path)) if path else values
    inner[int(last) if isinstance(inner, list) else last] = value


def _shortest(key: str, keys: Sequence[str]) -> str:
    """The fewest last parts of a key that mean it alone."""
    return next(
        tail
        for tail in _tails(key)
        if tail == key or (tail not in keys and sum(k.endswith(f".{tail}") for k in keys) == 1)
    )


def _tails(key: str) -> list[str]:
    """The key without its first parts, the shortest first; a number alone begins none."""
    parts = key.split(".")
    starts = (start for start in range(len(parts) - 1, -1, -1) if not parts[start].isdecimal())
    return [".".join(parts[start:]) for start in starts]


def _label(settings: Mapping[str, Any], short: Mapping[str, str]) -> str:
    return ",".join(f"{short[key]}={_safe(value)}" for key, value in settings.items())


def _safe(value: Any) -> str:
    """The value as part of a folder's name."""
    return _UNSAFE.sub("-", _shown(value)).strip("-")[:_LONGEST] or "empty"


def _free(label: str, taken: Sequence[str]) -> str:
    """The label, with a number where another variant has it."""
    names = (label if number == 1 else f"{label}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "none" if value is None else json.dumps(value)


def _said(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_shown(value)}" for key, value in settings.items())
