"""`pipe publish`: look at everything, then send it as one commit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.card import Publication, Subject, licence_of, model_card, public_recipe
from pipeline.chat import chat_format
from pipeline.publish import refusals
from pipeline.publish.contents import CARD, Item, Made, contents, types_of
from pipeline.publish.hub import Published, own_token, upload
from pipeline.publish.wish import Wish
from pipeline.recipe import Recipe
from pipeline.run import Emit


@dataclass(frozen=True)
class Part:
    """What publishing takes of a run. Its stages were found whole, and made by this recipe."""

    recipe: Recipe
    made: Made
    parameters: Mapping[str, Any]
    """Those of the Modelfile."""
    emit: Emit


@dataclass(frozen=True)
class Plan:
    """Everything that is sent, card included, by its path in the repository."""

    wish: Wish
    items: Mapping[str, Item]

    @property
    def card(self) -> str:
        content = self.items[CARD].source
        assert isinstance(content, bytes)
        return content.decode()


def planned(part: Part, wish: Wish) -> Plan:
    """The files and the card; asks no server.

    Raises PipeError for what must not be published: a failed check, a name or data that a licence
    forbids, a file that tells a secret.
    """
    made, emit = part.made, part.emit
    sources = made.data.facts["sources"]
    published = _publication(part, wish, refusals.gates(made.run, wish, emit))
    licence = licence_of(Subject(part.recipe, sources, published), made.export.facts["license"])
    refusals.check_name(wish, licence)
    refusals.check_licence(licence, part.recipe.model.base, emit)
    refusals.check_data(sources, wish, emit)
    items = contents(made, wish, licence, part.parameters)
    files = {path: item.entry for path, item in items.items()}
    published = replace(published, files=files, measured=refusals.measured(made.run, emit))
    format = chat_format(part.recipe.chat.format, thinks=part.recipe.chat.thinking)
    card = model_card(part.recipe, format, made.export.facts["license"], sources, published)
    plan = Plan(wish, {CARD: Item.of_text(CARD, card), **items})
    refusals.check_secrets(plan.items.values(), own_token())
    return plan


def publish(part: Part, wish: Wish) -> Published:
    """Send what `planned` gives, and read back that it arrived.

    An upload that was cut off goes on where it was; what is there already is not sent again.
    Raises PipeError as `planned` does, and for a hub that refuses or does not answer.
    """
    plan = planned(part, wish)
    return upload(wish, plan.items, part.made.run.name, part.emit)


def _publication(part: Part, wish: Wish, gates: list[Mapping[str, str]]) -> Publication:
    made = part.made
    return Publication(
        repository=wish.repository,
        files={},
        types=types_of(made.export, wish),
        recipe=public_recipe(part.recipe, made.data.facts),
        base_revision=made.base_revision,
        trained={"steps": made.train.counts["steps"]} | dict(made.train.facts),
        gates=gates,
    )
