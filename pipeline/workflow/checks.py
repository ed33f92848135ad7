"""Check a run."""

from typing import Any

from pipeline.workflow.work import Work


def check(work: Work) -> list[Any]:
    from pipeline.check import check as stage

    with work.run.lock():
        return stage(work.recipe, work.run, work.base(weights=False), work.emit)
