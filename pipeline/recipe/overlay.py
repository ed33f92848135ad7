"""Lay layer upon layer of a recipe's values, and say which layer each value came from."""

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

import yaml

from pipeline.errors import RecipeError

Values = dict[str, Any]


class Overlay:
    """The values of all layers so far; a later layer wins."""

    def __init__(self) -> None:
        self.values: Values = {}
        self.origins: dict[str, str] = {}
        """Dotted key of each leaf -> the source of its value."""

    def add(self, layer: Mapping[Any, Any], source: str) -> None:
        """Sections are laid over key by key, a list by the numbers of its items from 0 on (a
        mapping such as `{0: {limit: 5}}`), all else is replaced. The layer is left as it is.

        Raises RecipeError naming a list that has no item of that number.
        """
        written: set[str] = set()
        self.values = _over(self.values, layer, "", written)
        inside = {above for key in written for above in _upward(key)}
        self.origins = {
            # what was one value and is written in part has its new origin as a whole
            leaf: source
            if leaf in inside or not written.isdisjoint(_upward(leaf))
            else self.origins.get(leaf, source)
            for leaf, _ in leaves(self.values)
        }


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of all that is no section; items of a list of sections by number."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    if isinstance(value, dict) and (value or not key):
        for name, inner in value.items():
            yield from leaves(inner, _dotted(key, name))
    else:
        yield key, value


def written(value: Any) -> str:
    """The value as YAML in one line: what a recipe and `--set` may have."""
    text = yaml.dump(value, Dumper=_OneLine, default_flow_style=True, allow_unicode=True, width=inf)
    return str(text).removesuffix("...\n").removesuffix("\n")


class _OneLine(yaml.SafeDumper):
    """Quotes a text of several lines, which would otherwise stand in several."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if len(f"{text}.".splitlines()) > 1 else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_OneLine.add_representer(str, _OneLine.represent_text)


def _over(below: Any, layer: Any, key: str, written: set[str]) -> Any:
    """`layer` laid over `below`; the dotted keys of what it replaces are added to `written`."""
    if isinstance(layer, Mapping) and isinstance(below, dict):
        changed = dict(below)
        for name, value in layer.items():
            changed[name] = _over(below.get(name), value, _dotted(key, name), written)
        return changed
    if isinstance(layer, Mapping) and isinstance(below, list):
        items = list(below)
        for name, value in layer.items():
            number = _number(name, len(items), key)
            items[number] = _over(items[number], value, _dotted(key, number), written)
        return items
    written.add(key)
    return layer


def _number(name: Any, count: int, key: str) -> int:
    if str(name).isdecimal() and int(name) < count:
        return int(name)
    held = f"it has {count}, from 0 on" if count else "it is empty"
    raise RecipeError(f"{key} has no item {name}; {held}.")


def _dotted(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


def _upward(key: str) -> Iterator[str]:
    """The key itself and those of all sections around it."""
    while key:
        yield key
        key = key.rpartition(".")[0]
