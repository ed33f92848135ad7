"""Every method on the same weights, row by row; a row that is there is not measured again."""

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ChangedInput, PipeError
from pipeline.report.quant import write_study
from pipeline.run import Note
from pipeline.run.files import explained_writes, write_json, write_text
from pipeline.run.studies import QUANT_ROWS, SCHEMA, recorded, results_path
from pipeline.study.quant.measure import Measured, blank, measure
from pipeline.study.quant.methods import NONE, Method, chosen
from pipeline.study.quant.results import MEMORY, RULE, as_csv, best, in_words, last
from pipeline.study.quant.subject import Model, Subject, open_subject
from pipeline.study.refused import CANNOT, words_of
from pipeline.workflow import Work

Found = dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """What `pipe quant` is asked for."""

    model: Model = "tuned"
    methods: Sequence[str] = ()
    """Rows by name; none are all."""
    limit: int | None = None
    """Questions and held-out replies."""


def quantize(work: Work, wish: Wish) -> Found:
    """Measure what is not measured yet, and write results.json, quant.csv and quant.html.

    A method that cannot be run here is a row with the words of what refused it, and is tried again
    by the next study. Raises PipeError where a stage before it is missing or changed.
    """
    methods = chosen(wish.methods, work.recipe.export.quantize)
    with work.run.lock():
        subject = open_subject(work, wish.model, wish.limit)
        if work.force:
            shutil.rmtree(subject.root, ignore_errors=True)
        _announce(subject)
        with explained_writes("quant"):
            found = _rows(subject, methods)
            results = _results(subject, found)
            _publish(subject, results)
            _clear(subject.root, but=[subject.root / QUANT_ROWS])
    return results


def planned(work: Work, wish: Wish) -> list[Found]:
    """The rows that a study would have, and whether each is there already; measures nothing."""
    subject = open_subject(work, wish.model, wish.limit)
    return [
        {**asdict(method), "status": "kept" if _kept(subject, method) else "to be measured"}
        for method in chosen(wish.methods, work.recipe.export.quantize)
    ]


def _announce(subject: Subject) -> None:
    """How the model is opened, and what is left of a study of another state of it."""
    before = None
    with suppress(ChangedInput):  # it is written anew
        before = last(subject.work.run)
    if before and before["model"] != subject.model:
        said = f"quant/ holds the study of the {before['model']} model; its rows are kept."
        subject.work.emit(Note(f"{said} It makes room for the {subject.model} model's."))
    for difference in subject.part.trained.differences():
        subject.work.emit(Note(difference, warning=True))
    _clear(subject.root, but=[subject.root / QUANT_ROWS, subject.folder])
    ungraded = sum(item.reference is None for item in subject.asked.items)
    if ungraded:
        asked = f"{ungraded} of {len(subject.asked.items)} questions"
        subject.work.emit(Note(f"quant: {asked} have no reference and are not graded."))


def _rows(subject: Subject, methods: Sequence[Method]) -> list[Measured]:
    found = []
    for number, method in enumerate(methods, 1):
        kept = _kept(subject, method)
        there = " (measured before)" if kept else ""
        subject.work.emit(Note(f"Row {number} of {len(methods)}: {method.label}{there}"))
        found.append(kept or _measured(subject, method, methods))
    return found


def _measured(subject: Subject, method: Method, methods: Sequence[Method]) -> Measured:
    types = [each.name for each in methods if each.family == "gguf"]
    try:
        found = measure(subject, method, types)
    except CANNOT as error:
        if method == NONE:
            raise
        reason = words_of(error)
        hint = error.hint if isinstance(error, PipeError) else ""
        said = f"{method.label} is not run: {reason} {hint}".rstrip()
        subject.work.emit(Note(said, warning=True))
        return Measured(blank(method) | {"status": "not_run", "reason": reason}, {})
    _keep(subject, method, found)
    return found


def _path(subject: Subject, method: Method) -> Path:
    return subject.root / QUANT_ROWS / f"{subject.model}-{method.name}.json"


def _keep(subject: Subject, method: Method, found: Measured) -> None:
    content = {"key": subject.key(method), "row": found.row, "layers": dict(found.layers)}
    write_json(_path(subject, method), content)


def _kept(subject: Subject, method: Method) -> Measured | None:
    """The row as it was measured by the same work; its times are of then."""
    try:
        found = json.loads(_path(subject, method).read_text(encoding="utf-8"))
        same = found["key"] == subject.key(method)
        return Measured(found["row"], found["layers"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _results(subject: Subject, found: Sequence[Measured]) -> Found:
    rows = [each.row for each in found]
    items = subject.asked.items
    results: Found = {
        "schema": SCHEMA,
        "inputs": recorded(subject.inputs),
        "recipe": subject.work.recipe.name,
        "model": subject.model,
        "base": subject.part.base.title,
        "task": subject.task.name,
        "questions": len(items),
        "graded": sum(item.reference is not None for item in items),
        "replies": len(subject.sequences),
        "positions": subject.positions,
        "device": subject.part.trained.device,
        "memory": MEMORY,
        "rule": RULE,
        "best": best(rows, subject.metric.better),
        "rows": rows,
        "layers": {each.row["method"]: dict(each.layers) for each in found if each.layers},
    }
    return {**results, "says": in_words(results)}


def _publish(subject: Subject, results: Found) -> None:
    """results.json last: where it is there, the others belong to it."""
    path = results_path(subject.work.run, "quant")
    path.unlink(missing_ok=True)
    write_text(path.with_name("quant.csv"), as_csv(results))
    write_study(path.parent, results)
    write_json(path, results)


def _clear(root: Path, but: Sequence[Path]) -> None:
    """Remove what was made on the way, which may be large."""
    for path in root.iterdir() if root.exists() else ():
        if path not in but:
            shutil.rmtree(path)
