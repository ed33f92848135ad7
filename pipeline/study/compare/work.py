"""Train every variant, then ask every variant; what is done already is not done again."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import workflow
from pipeline.errors import PipeError
from pipeline.report import picture_of_data
from pipeline.report.compare import write_comparison
from pipeline.run import Emit, Event, Note, Progress
from pipeline.run.events import Measured
from pipeline.run.files import explained_writes, write_json, write_text
from pipeline.run.lock import locked
from pipeline.run.studies import SHARED_ROWS, results_path
from pipeline.study.compare.plan import Comparison, expected_seconds, obeys
from pipeline.study.compare.results import Found, as_csv, results_of
from pipeline.study.compare.vary import Variant
from pipeline.workflow import Work

BASE = "base"
"""Below `compare/`: the base's answers, which all variants share."""
_STAGE = re.compile(r"\bpipe (?:prepare|train|export|eval)\b")


def compare(plan: Comparison) -> dict[str, Any]:
    """Do what is not done yet, and write results.json, compare.csv and compare.html.

    Training comes first for all: while it runs no model is held in this process. A variant that
    fails is a row with its reason, and is tried again by the next call.
    Raises PipeError where no variant could be done; KeyboardInterrupt when it was stopped.
    """
    with locked(plan.folder):
        _announce(plan)
        if plan.work.force:
            shutil.rmtree(plan.folder / BASE, ignore_errors=True)
        failures: dict[str, str] = {}
        _each(plan, failures, _train)
        if "eval" in plan.stages:
            _each(plan, failures, _ask)
        results = results_of(plan, failures)
        _publish(plan, results)
    if not any(row["status"] == "done" for row in results["variants"]):
        first = results["variants"][0]
        raise PipeError(
            f"No variant could be done. {first['label']} {first['status']}: {first['reason']}",
            f"All reasons: {plan.folder / 'compare.html'}",
        )
    return results


def _publish(plan: Comparison, results: Found) -> None:
    """results.json last: where it is there, the others belong to it."""
    with explained_writes("compare"):
        results_path(plan.work.run, "compare").unlink(missing_ok=True)
        write_text(plan.folder / "compare.csv", as_csv(results))
        write_comparison(plan.folder, results)
        write_json(results_path(plan.work.run, "compare"), results)


def _announce(plan: Comparison) -> None:
    emit, seconds = plan.work.emit, expected_seconds(plan)
    labels = ", ".join(variant.label for variant in plan.variants)
    about = f"; about {seconds / 60:.0f} min are left" if seconds and seconds >= 60 else ""
    emit(Note(f"{len(plan.variants)} variants{about}: {labels}"))
    for variant in plan.variants:
        if variant.recipe is None:
            emit(Note(f"{variant.label} is refused: {variant.reason}", warning=True))


def _each(
    plan: Comparison, failures: dict[str, str], step: Callable[[Comparison, Work], None]
) -> None:
    """The step for every variant that has not failed; what it raises is that variant's reason."""
    for variant in plan.ready:
        if variant.label in failures:
            continue
        work = _work(plan, variant)
        try:
            step(plan, work)
        except PipeError as error:
            reason = _in_compare(f"{error.message} {error.hint}".strip())
            failures[variant.label] = reason
            plan.work.emit(Note(f"{variant.label} failed: {reason}", warning=True))


def _work(plan: Comparison, variant: Variant) -> Work:
    assert variant.recipe is not None
    emit = _named(plan.work.emit, variant.label)
    return replace(plan.work, recipe=variant.recipe, run=plan.run(variant), emit=emit)


def _train(plan: Comparison, work: Work) -> None:
    work.run.root.mkdir(parents=True, exist_ok=True)
    with explained_writes("the shared rows"):
        _take_rows(plan, work)
    workflow.prepare(replace(work, force=False))
    workflow.train(work)
    if plan.export:
        workflow.export(work)


def _take_rows(plan: Comparison, work: Work) -> None:
    """Link the rows of a run that prepared the same; prepare itself sees whether they are whole.

    Where there are none the variant prepares them: what the recipe's own run has stays as it is.
    """
    if obeys(work.recipe, work.run, "data"):
        return
    others = [plan.work.run, *(plan.run(variant) for variant in plan.ready)]
    source = next((run for run in others if obeys(work.recipe, run, "data")), None)
    if source is None:
        return
    draft = work.run.root / SHARED_ROWS
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source.folder("data"), draft, copy_function=_link)
    if picture_of_data(source).exists():
        picture_of_data(work.run).unlink(missing_ok=True)
        _link(picture_of_data(source), picture_of_data(work.run))
    shutil.rmtree(work.run.folder("data"), ignore_errors=True)
    draft.rename(work.run.folder("data"))


def _link(source: str | Path, target: str | Path) -> None:
    """Stages replace files and never change them, so two runs may hold the same one."""
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _ask(plan: Comparison, work: Work) -> None:
    """As `pipe eval` does, but the base is asked once for all variants."""
    workflow.evaluate(work, shared=plan.folder / BASE)


def _named(emit: Emit, label: str) -> Emit:
    """What is said of a variant, under its name."""

    def told(event: Event) -> None:
        if isinstance(event, Note):
            emit(replace(event, text=f"{label}: {_in_compare(event.text)}"))
        elif isinstance(event, Progress | Measured):
            emit(replace(event, task=f"{label}: {event.task}"))

    return told


def _in_compare(text: str) -> str:
    """A stage's own command would do the recipe's run, not the variant's."""
    return _STAGE.sub("pipe compare", text)
