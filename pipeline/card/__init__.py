"""The model card: what the hub and its readers are told, and what the licences ask."""

from pipeline.card.card import licence_of, model_card
from pipeline.card.licences import Licence, forbidding, unknown
from pipeline.card.public import public_name, public_recipe, public_text
from pipeline.card.results import Measured
from pipeline.card.subject import Publication, Subject

__all__ = [
    "Licence",
    "Measured",
    "Publication",
    "Subject",
    "forbidding",
    "licence_of",
    "model_card",
    "public_name",
    "public_recipe",
    "public_text",
    "unknown",
]
