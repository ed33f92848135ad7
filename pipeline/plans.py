"""What a recipe asks of each stage: the stage does it, and `pipe status` looks whether it did."""

from collections.abc import Mapping

from pipeline.chat import chat_format
from pipeline.recipe import Recipe
from pipeline.recipe.training import UNSEEN, Train
from pipeline.run import Manifest, Run, Stage

_SECTIONS: Mapping[Stage, set[str]] = {
    "data": {"model", "data", "chat"},
    "train": {"model", "train"},
    "export": {"export", "serve"},
    "serve": {"serve"},
    "check": set(),
    "eval": {"eval"},
}
"""Stage -> the sections of the recipe that it obeys; others come to it by what it is made from."""


def planned(stage: Stage, recipe: Recipe, run: Run) -> Manifest:
    """The stage's manifest as far as the recipe and the run's manifests tell it.

    No other file is read and no server asked: the stage itself adds its inputs, and what it finds.
    Raises PipeError for a chat format that there is not.
    """
    format = chat_format(recipe.chat.format, thinks=recipe.chat.thinking)
    section = recipe.model_dump(mode="json", include=_SECTIONS[stage])
    if stage == "train":
        section["train"] = as_trained(recipe.train).model_dump(mode="json", exclude=set(UNSEEN))
    elif stage == "eval":
        section |= {"num_ctx": recipe.num_ctx, "device": recipe.train.device}
        if (last := run.last("eval")) and "served" in last.section:
            section["served"] = served(run)
    return Manifest(stage, section, {}, chat_format=format.fingerprint(), seed=recipe.seed)


def base_revision(recipe: Recipe, data: Manifest | None) -> str | None:
    """The base's commit when `data` was made, if the recipe asks for that base in these words."""
    if data is None:
        return None
    asked, now = data.section["model"], recipe.model
    if (asked["base"], asked["revision"]) != (now.base, now.revision):
        return None
    revision: str | None = data.facts["base"]["revision"]
    return revision


def as_trained(train: Train) -> Train:
    """As its device can do it: without a GPU's attention kernels, packed rows would be one."""
    if train.batching != "packed" or train.device == "cuda":
        return train
    return train.model_copy(update={"batching": "grouped"})


def served(run: Run) -> dict[str, object]:
    """What this run registered with Ollama, which eval asks: name, digest and parameters."""
    manifest = run.manifest("serve")
    if manifest is None:
        return {}
    model = manifest.facts["models"][0]
    known = {key: model[key] for key in ("name", "digest", "served") if key in model}
    return known | {"parameters": manifest.facts.get("parameters", {})}
