"""The stages in order, checks of what they made, and who can be talked to."""

from pipeline.workflow.checks import check, check_file, check_model
from pipeline.workflow.stages import (
    evaluate,
    examples,
    expected,
    export,
    export_folder,
    prepare,
    register,
    register_if_served,
    run_all,
    take_part,
    train,
)
from pipeline.workflow.status import preview, status
from pipeline.workflow.talks import talking
from pipeline.workflow.work import Work

__all__ = [
    "Work",
    "check",
    "check_file",
    "check_model",
    "evaluate",
    "examples",
    "expected",
    "export",
    "export_folder",
    "prepare",
    "preview",
    "register",
    "register_if_served",
    "run_all",
    "status",
    "take_part",
    "talking",
    "train",
]
