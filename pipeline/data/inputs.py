"""What prepare works on, settled before a row is read: the base, and every source at a commit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.base import Base, open_base
from pipeline.chat import chat_format, check_fit
from pipeline.data.read.benchmarks import HeldOut, open_benchmark
from pipeline.data.read.sources import Opened, open_source
from pipeline.data.work.gather import DECIDING
from pipeline.data.work.worker import Kind
from pipeline.plans import base_revision, planned
from pipeline.recipe import Recipe, Source
from pipeline.run import Manifest, Run, versions_of

SHIPPED = "builtin:samples/general.jsonl"
"""The general rows of a recipe that names none."""


@dataclass(frozen=True)
class Inputs:
    """Everything that the result depends on, settled before a row is read."""

    recipe: Recipe
    base: Base
    train: tuple[Opened, ...]
    test: Opened | None
    general: Opened
    benchmarks: tuple[HeldOut, ...]

    def opened(self) -> list[tuple[Kind, Opened]]:
        """Every source of rows, in the order in which they are read."""
        found: list[tuple[Kind, Opened]] = [("train", each) for each in self.train]
        if self.test:
            found.append(("test", self.test))
        return [*found, ("general", self.general)]


def settle(
    recipe: Recipe, last: Manifest | None = None, pins: Mapping[str, str] | None = None
) -> Inputs:
    """Open the base and every source.

    A hub name unpinned in the recipe keeps the commit of `last`, else that of `pins`, which an
    interrupted prepare left.
    """
    base = open_base(recipe.model, revision=base_revision(recipe, last), weights=False)
    check_fit(
        base.folder / "tokenizer.json", chat_format(recipe.chat.format, thinks=recipe.chat.thinking)
    )
    known = {**(pins or {}), **_revisions(last)}
    data = recipe.data
    general = _general(recipe)
    return Inputs(
        recipe,
        base,
        tuple(open_source(each, known.get(_asked(each))) for each in data.sources),
        open_source(data.test, known.get(_asked(data.test))) if data.test else None,
        open_source(general, known.get(_asked(general))),
        tuple(open_benchmark(each, known.get(_asked(each))) for each in data.decontaminate),
    )


def plan(work: Inputs, run: Run) -> Manifest:
    """The manifest of this work before it is done: no outputs and no counts yet."""
    inputs = work.base.tokenizer_entries()
    for number, opened in enumerate(work.train):
        inputs[f"source-{number}/{opened.label}"] = opened.entry
    if work.test:
        inputs[f"test/{work.test.label}"] = work.test.entry
    inputs[f"general/{work.general.label}"] = work.general.entry
    for number, each in enumerate(work.benchmarks):
        inputs[f"benchmark-{number}/{each.opened.label}"] = each.opened.entry
    return replace(
        planned("data", work.recipe, run),
        inputs=inputs,
        versions=versions_of(*DECIDING, "datasets", "huggingface_hub", "pyarrow"),
        facts={
            "base": {"name": work.base.name, "revision": work.base.revision},
            "sources": [opened.facts() for opened in work.train],
            "test": work.test.facts() if work.test else None,
            "general": work.general.facts(),
            "decontaminate": [each.facts() for each in work.benchmarks],
        },
    )


def _general(recipe: Recipe) -> Source:
    """The shipped few must never stop a prepare, however short its rows have to be."""
    return recipe.data.general or Source(dataset=SHIPPED, max_loss=1.0)


def _revisions(last: Manifest | None) -> dict[str, str]:
    """Commit by what the recipe asked for."""
    if last is None:
        return {}
    data, facts = last.section["data"], last.facts
    # an older manifest has no general rows; theirs is the last of its sources too where they train
    asked = [*data["sources"], data["test"], data.get("general"), *data["decontaminate"]]
    sources = facts["sources"][: len(data["sources"])]
    read = [*sources, facts["test"], facts.get("general"), *facts["decontaminate"]]
    return {
        _place(source): fact["revision"]
        for source, fact in zip(asked, read, strict=True)
        if source and fact.get("revision")
    }


def pins_of(work: Inputs) -> dict[str, str]:
    """Commit by what the recipe asked for, of what is read from the hub."""
    benchmarks = (each.opened for each in work.benchmarks)
    opened = [*work.train, work.test, work.general, *benchmarks]
    data = work.recipe.data
    asked = [*data.sources, data.test, data.general, *data.decontaminate]
    return {
        _asked(source): each.revision
        for source, each in zip(asked, opened, strict=True)
        if source and each and each.revision
    }


def pinned_in(path: Path) -> dict[str, str]:
    """What an interrupted prepare read, so that its parts are gone on from."""
    if not path.exists():
        return {}
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _asked(source: Any) -> str:
    return _place(source.model_dump(mode="json"))


def _place(source: dict[str, Any]) -> str:
    return json.dumps([source[key] for key in ("dataset", "config", "split", "revision")])
