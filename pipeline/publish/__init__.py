"""Pass a run on: adapter or model, GGUFs and a card, as one repository of the hub."""

from pipeline.publish.contents import Item
from pipeline.publish.hub import Published
from pipeline.publish.stage import Part, Plan, planned, publish
from pipeline.publish.wish import Only, Wish

__all__ = ["Item", "Only", "Part", "Plan", "Published", "Wish", "planned", "publish"]
