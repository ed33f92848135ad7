"""What of a recipe the world may read: no folder of this machine, no address, no secret."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PureWindowsPath
from typing import Any

import yaml

from pipeline.assets import PREFIX
from pipeline.recipe import Recipe
from pipeline.run.secrets import harmless

_PATH = re.compile(
    r"(?<![\w./:])(?:~|\.{1,2})?/(?:[^\s/'\"`]+/)+[^\s/'\"`]*|\b[A-Za-z]:\\[^\s'\"`]+"
)
_LOCAL = (".", "/", "~")
_FILES = (".jsonl", ".parquet", ".json", ".yaml", ".yml", ".gguf", ".dat", ".py")

Json = dict[str, Any]


def public_name(name: str, *, on_hub: bool | None = None) -> str:
    """A hub id or `builtin:NAME` as it is; of a path on this machine its last part.

    `on_hub` says which it is where that was recorded; without it, the name's form decides.
    """
    if name.startswith(PREFIX):
        return name
    if on_hub is None:
        looks_local = name.startswith(_LOCAL) or name.endswith(_FILES) or "\\" in name
        on_hub = not looks_local and name.count("/") <= 1
    return name if on_hub else _last(name)


def public_text(text: str) -> str:
    """A text with its secrets taken out, and its paths cut to their last part."""
    return _PATH.sub(lambda found: _last(found[0]), harmless(text))


def public_recipe(recipe: Recipe, facts: Mapping[str, Any]) -> str:
    """The recipe as YAML, without what is None, pinned to the commits of the data manifest's facts.

    Addresses are left out, paths are cut to their last part.
    """
    said: Json = recipe.model_dump(mode="json", exclude_none=True)
    said["eval"].pop("endpoint", None)
    _pin(said["model"], "base", facts.get("base"))
    data = said["data"]
    _pin_all(data["sources"], facts.get("sources"))
    _pin_all(data.get("decontaminate") or [], facts.get("decontaminate"))
    for key in ("test", "general"):
        if key in data:
            _pin(data[key], "dataset", facts.get(key))
    if importance := said["export"].get("importance"):
        importance |= {key: _last(importance[key]) for key in ("file",) if key in importance}
    said["eval"]["tasks"] = [public_name(task) for task in said["eval"]["tasks"]]
    return str(yaml.safe_dump(_cleaned(said), sort_keys=False, allow_unicode=True, width=100))


def _pin_all(asked: Sequence[Json], found: Sequence[Mapping[str, Any]] | None) -> None:
    """`found` may go on with a source that is not asked for here: the general rows'."""
    facts = found if found and len(found) >= len(asked) else [None] * len(asked)
    for each, fact in zip(asked, facts, strict=False):
        _pin(each, "dataset", fact)


def _pin(asked: Json, key: str, fact: Mapping[str, Any] | None) -> None:
    """What is on the hub was read at a commit; what was read without one lies on this machine."""
    revision = fact.get("revision") if fact else None
    asked[key] = public_name(asked[key], on_hub=bool(revision) if fact else None)
    if revision:
        asked["revision"] = revision


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return public_text(value)
    if isinstance(value, dict):
        return {key: _cleaned(each) for key, each in value.items()}
    return [_cleaned(each) for each in value] if isinstance(value, list) else value


def _last(path: str) -> str:
    """The last part; a Windows path may have either slash."""
    return PureWindowsPath(path).name or "local"
