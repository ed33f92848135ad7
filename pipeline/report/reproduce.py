"""How to do a run again: commands, the recipe with its commits pinned, and what did the work."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import yaml

from pipeline.report.view import RunView
from pipeline.run.folder import MADE_BY, NEEDS


def commands(view: RunView) -> list[str]:
    """The stages that this run has, from the recipe below saved as recipe.yaml."""
    name = view.run.name
    options = "-r recipe.yaml" + ("" if name == view.recipe.get("name") else f" --run {name}")
    return [f"{MADE_BY[stage]} {options}" for stage in NEEDS if stage in view.manifests]


def pinned_recipe(view: RunView) -> str:
    """recipe.yaml, with the commits that were really read where it names none.

    It has no place for those of evaluation tasks: `provenance` has them.
    """
    recipe = deepcopy(view.recipe)
    facts = view.facts("data")
    _pin(recipe.get("model"), facts.get("base"))
    data = recipe.get("data", {})
    for source, fact in zip(data.get("sources", ()), facts.get("sources", ()), strict=False):
        if fact.get("dataset") == source.get("dataset"):
            _pin(source, fact)
    _pin(data.get("test"), facts.get("test"))
    benchmarks = data.get("decontaminate") or ()
    for asked, fact in zip(benchmarks, facts.get("decontaminate", ()), strict=False):
        if fact.get("dataset") == asked.get("dataset"):
            _pin(asked, fact)
    return str(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))


def _pin(asked: dict[str, Any] | None, found: Mapping[str, Any] | None) -> None:
    if asked and found and found.get("revision"):
        asked["revision"] = found["revision"]


def provenance(view: RunView) -> list[tuple[str, str]]:
    """(what, which): seed, commits and hashes of base, data and tasks, chat format, versions."""
    last = next(reversed(view.manifests.values()))
    facts = view.facts("data")
    found = [("seed", str(last.seed))]
    if base := facts.get("base"):
        found.append((f"base {base['name']}", _which(base, _weights(view))))
    benchmarks = facts.get("decontaminate", ())
    for source in [*facts.get("sources", ()), *filter(None, [facts.get("test")]), *benchmarks]:
        name = " ".join(filter(None, (source["dataset"], source.get("config"))))
        found.append((name, _which(source, source.get("sha256", ""))))
    for name, task in view.facts("eval").get("tasks", {}).items():
        if name != "test":
            found.append((f"task {name}", _which(task, task.get("sha256", ""))))
    if last.chat_format:
        form = last.chat_format
        found.append((f"chat format {form['name']}", f"sha256 {form['sha256']}"))
    versions: dict[str, str] = {}
    for manifest in view.manifests.values():
        versions |= manifest.versions
    return found + sorted(versions.items())


def _weights(view: RunView) -> str:
    """sha256 of the base's weights, where they are one file."""
    inputs = view.manifests["train"].inputs if "train" in view.manifests else {}
    hashes = [entry.sha256 for name, entry in inputs.items() if name.endswith(".safetensors")]
    return hashes[0] if len(hashes) == 1 else ""


def _which(fact: Mapping[str, Any], digest: str) -> str:
    if revision := fact.get("revision"):
        return f"commit {revision}"
    return f"sha256 {digest}" if digest else "no commit recorded"
