"""A run's folder: where each stage's work lies, and how it is published and verified."""

from pipeline.run.events import Emit, Event, Measured, Note, Progress, silent
from pipeline.run.folder import Run
from pipeline.run.manifest import Entry, Manifest, Stage, describe, describe_tree, versions_of

__all__ = [
    "Emit",
    "Entry",
    "Event",
    "Manifest",
    "Measured",
    "Note",
    "Progress",
    "Run",
    "Stage",
    "describe",
    "describe_tree",
    "silent",
    "versions_of",
]
