"""Publish a run: what it has to be before, and what goes."""

from typing import TYPE_CHECKING

from pipeline.chat import chat_format
from pipeline.errors import StaleInput
from pipeline.run import Manifest, Stage
from pipeline.run.folder import MADE_BY
from pipeline.workflow.status import status
from pipeline.workflow.work import Work

if TYPE_CHECKING:
    from pipeline.publish import Part, Plan, Published, Wish


def publish(work: Work, wish: "Wish") -> "Published":
    """Send the run to the hub. Raises PipeError where it is not whole, or must not be sent."""
    from pipeline.publish import publish as stage

    with work.run.lock():
        return stage(_part_of(work, wish), wish)


def planned(work: Work, wish: "Wish") -> "Plan":
    """What `publish` would send, without asking a server."""
    from pipeline.publish import planned as look

    with work.run.lock():
        return look(_part_of(work, wish), wish)


def _part_of(work: Work, wish: "Wish") -> "Part":
    from pipeline.publish import Part
    from pipeline.publish.contents import Made
    from pipeline.serve import parameters

    data, train, export = _whole(work)
    if wish.only != "gguf":
        work.run.check_there("train", train.outputs)
    if wish.only != "adapter":
        work.run.check_there("export", export.outputs)
    made = Made(work.run, data, train, export)
    format = chat_format(work.recipe.chat.format, thinks=work.recipe.chat.thinking)
    return Part(work.recipe, made, parameters(work.recipe, format), work.emit)


def _whole(work: Work) -> tuple[Manifest, Manifest, Manifest]:
    """The stages' manifests. Raises PipeError for one that is missing, changed or stale."""
    states = status(work)
    stages: tuple[Stage, ...] = ("data", "train", "export")
    found = []
    for stage in stages:
        manifest = work.run.manifest(stage)
        if manifest is None or states[stage] != "done":
            work.run.require(stage)
            raise StaleInput(
                f"{work.run.folder(stage)} was made with other settings than the recipe's.",
                f"Run: {MADE_BY[stage]}",
            )
        found.append(manifest)
    return found[0], found[1], found[2]
