"""The metric that decides on the page, and the paired tests of what training made of it."""

from collections.abc import Mapping
from typing import Any

from pipeline.recipe.metrics import deciding_of
from pipeline.report.view import RunView
from pipeline.report.words import metrics_of

Test = dict[str, Any]
"""A comparison as `pipe eval` writes one."""


def main_metric(view: RunView, engines: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The recipe's deciding metric where some engine has it, else the first that one has.

    Of the leading task's engines where none are given; empty where nothing was measured.
    """
    made = view.manifests.get("eval")
    asked = (made.section if made else view.recipe).get("eval", {}).get("metrics") or ()
    names = metrics_of(view.engines if engines is None else engines)
    wanted = deciding_of(asked)
    return wanted if wanted in names else next(iter(names), "")


def comparisons(view: RunView, task: str) -> list[Test]:
    """The task's paired tests, as `pipe eval` made them."""
    return list(view.tasks.get(task, {}).get("comparisons") or ())


def comparison(view: RunView, name: str, before: str, after: str, task: str = "") -> Test:
    """The paired test of a metric on a task, by default the leading one; empty where none is."""
    wanted = (name, before, after)
    tests = comparisons(view, task or view.lead)
    return next((t for t in tests if (t["metric"], t["from"], t["to"]) == wanted), {})
