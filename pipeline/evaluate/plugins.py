"""Other people's metrics and tasks: entry points of installed packages, and a file named by hand.

Groups: `r1pipe.metrics`, a function `metric(row, reply) -> float`; `r1pipe.tasks`, a function
without arguments that gives rows (question, and answer or reference).
A recipe may name what is installed here, never a file of code: it may come from anywhere.
"""

import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pipeline.errors import PipeError

UserMetric = Callable[[Mapping[str, Any], str], float]
"""The row, and the whole reply as it came, its thinking included -> a number."""

METRICS, TASKS = "r1pipe.metrics", "r1pipe.tasks"


def installed_metric(name: str) -> UserMetric:
    """Raises PipeError where no installed package has it, or it does not load."""
    found = find(METRICS, name)
    if found is None:
        there = ", ".join(names(METRICS)) or "none"
        raise PipeError(
            f"No installed package has a metric {name}; there is: {there}.",
            "Name one of these in eval.metrics, or a file: pipe eval --metric FILE.py",
        )
    return checked(name, loaded(found))


def metric_in(path: Path) -> UserMetric:
    """The function `metric` of a Python file, which is run. Raises PipeError for none."""
    specification = importlib.util.spec_from_file_location(f"r1pipe_metric_{path.stem}", path)
    if specification is None or specification.loader is None or not path.is_file():
        raise PipeError(f"There is no Python file {path}.", "Like: pipe eval --metric polite.py")
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        raise PipeError(f"{path} does not run: {_said(error)}", "Correct the metric.") from error
    function = getattr(module, "metric", None)
    if not callable(function):
        raise PipeError(
            f"{path} has no function `metric`.", "Write: def metric(row, reply) -> float"
        )
    return checked(path.stem, function)


def checked(name: str, function: Callable[..., Any]) -> UserMetric:
    """The function with its errors and odd results told by the row."""

    def metric(row: Mapping[str, Any], reply: str) -> float:
        where = f"The metric {name}, row {row.get('id')}"
        try:
            value = float(function(row, reply))
        except Exception as error:
            raise PipeError(f"{where}: {_said(error)}", "Correct the metric.") from error
        if not math.isfinite(value):
            raise PipeError(f"{where}: {value} is no number to take a mean of.")
        return value

    return metric


def installed_rows(entry: EntryPoint) -> list[Mapping[str, Any]]:
    """All rows of an installed task. Raises PipeError where it fails or gives other than rows."""
    try:
        rows: Iterable[Any] = loaded(entry)()
        found = list(rows)
    except PipeError:
        raise
    except Exception as error:
        raise PipeError(
            f"The task {entry.name} of {entry.value} fails: {_said(error)}",
            "Ask the package that has it.",
        ) from error
    if not found or not all(isinstance(row, Mapping) for row in found):
        raise PipeError(f"The task {entry.name} of {entry.value} gives no rows.")
    return found


def find(group: str, name: str) -> EntryPoint | None:
    return next(iter(entry_points(group=group, name=name)), None)


def names(group: str) -> list[str]:
    return sorted({entry.name for entry in entry_points(group=group)})


def loaded(entry: EntryPoint) -> Callable[..., Any]:
    """What the entry point names. Raises PipeError where it cannot be imported or called."""
    try:
        function = entry.load()
    except Exception as error:
        raise PipeError(
            f"{entry.name} of {entry.value} does not load: {_said(error)}",
            "Reinstall the package that has it.",
        ) from error
    if not callable(function):
        raise PipeError(f"{entry.name} of {entry.value} is no function.")
    return function  # type: ignore[no-any-return]


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
