"""What was measured and what was checked, as a card says it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from pipeline.card.public import public_name

Json = Mapping[str, Any]

_SHARES = ("exact_match", "well_formed", "truncated")
_LABELS = {
    "exact_match": "Accuracy",
    "well_formed": "Well formed",
    "truncated": "Cut off",
    "cross_entropy": "Cross-entropy",
}
"""Of evaluate's metrics, those that a card shows."""
_ENGINES = {
    "base": "base, before",
    "adapter": "tuned",
    "merged": "tuned, merged into 16 bits",
    "ollama": "served by Ollama",
}
_TEST = "test"


@dataclass(frozen=True)
class Measured:
    """The results of `pipe eval`, of its leading task on top."""

    results: Json
    lead: str
    order: Sequence[str] = ()
    """Engines in the order of the work."""
    tasks: Mapping[str, Json] | None = None
    """Task -> where its questions are from: the eval manifest's facts."""

    def by_task(self) -> Iterator[tuple[str, Json]]:
        yield self.lead, self.results
        yield from (self.results.get("tasks") or {}).items()

    def engines(self, task: Json) -> dict[str, Json]:
        """Engine -> metrics in order; an endpoint is another's model."""
        found: Json = task["engines"]
        return {name: found[name] for name in self.order if name in found and name != "endpoint"}


@dataclass(frozen=True)
class Table:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    said: str
    """What training changed, in a sentence."""


@dataclass(frozen=True)
class Score:
    """One figure for the hub's model-index; `value` is a share of 1, or the metric's own unit."""

    task: str
    dataset: str
    metric: str
    label: str
    value: float


def tables(measured: Measured) -> list[Table]:
    """One of each task: a row an engine, figures with their 95% intervals."""
    return [_table(measured, name, task) for name, task in measured.by_task()]


def scores(measured: Measured, published: Sequence[str]) -> list[Score]:
    """The figures of the engines that are published; a share's interval stands in its label."""
    return [
        Score(task_name(name), _dataset(measured, name), metric, label, round(value["value"], 4))
        for name, task in measured.by_task()
        for engine, metrics in measured.engines(task).items()
        if engine in published
        for metric, value in _shown_of(metrics)
        for label in [_label(metric, engine, value, int(task["items"]))]
    ]


def task_name(task: str) -> str:
    return "held-out rows" if task == _TEST else public_name(task)


def gates_told(gates: Sequence[Mapping[str, str]]) -> list[str]:
    """How many gates there were, and the names of those that did not pass, a sentence each.

    Their reasons stay here: those name this machine's files and servers.
    """
    names = {
        status: [gate["name"] for gate in gates if gate["status"] == status]
        for status in ("passed", "failed", "not_run")
    }
    said = [f"{len(names['passed'])} of {len(gates)} passed."]
    if names["failed"]:
        said.append(f"**Failed**: {', '.join(names['failed'])}.")
    if names["not_run"]:
        said.append(f"Not run: {', '.join(names['not_run'])}.")
    return said


def _table(measured: Measured, name: str, task: Json) -> Table:
    engines = measured.engines(task)
    metrics = [metric for metric in _LABELS if any(metric in each for each in engines.values())]
    rows = [
        [_ENGINES.get(engine, engine), *(_shown(metric, scores.get(metric)) for metric in metrics)]
        for engine, scores in engines.items()
    ]
    samples = task.get("samples", 1)
    each = f", {samples} replies each" if samples > 1 else ""
    title = f"{task_name(name).capitalize()}: {task['items']:,} questions{each}"
    return Table(title, ["", *(_LABELS[metric] for metric in metrics)], rows, _change(task))


def _change(task: Json) -> str:
    """The paired test of accuracy, base to tuned; empty where none was made."""
    for each in task.get("comparisons") or ():
        if each["metric"] == "exact_match" and each["from"] == "base":
            value, low, high = (100 * each["change"][key] for key in ("value", "low", "high"))
            p_value = each["p_value"]
            chance = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"
            return (
                f"Base to tuned, accuracy: {value:+.1f} points, 95% interval {low:+.1f} to "
                f"{high:+.1f} ({each['test']}, {chance})."
            )
    return ""


def _label(metric: str, engine: str, value: Json, items: int) -> str:
    low, high = (_number(metric, value[end]) for end in ("low", "high"))
    who = _ENGINES.get(engine, engine)
    return f"{_LABELS[metric]}, {who} (95% interval {low} to {high}, {items} questions)"


def _shown_of(metrics: Json) -> list[tuple[str, Json]]:
    """The figures that a card shows, in its order."""
    return [(name, metrics[name]) for name in _LABELS if _is_value(metrics.get(name))]


def _shown(metric: str, value: Any) -> str:
    if not _is_value(value):
        return "–"
    low, high = (_number(metric, value[end]) for end in ("low", "high"))
    return f"{_number(metric, value['value'])} ({low} to {high})"


def _number(metric: str, value: float) -> str:
    return f"{100 * value:.1f}%" if metric in _SHARES else f"{value:.3g}"


def _is_value(value: Any) -> bool:
    ends = ("value", "low", "high")
    return isinstance(value, Mapping) and all(
        isinstance(value.get(end), int | float) and isfinite(value[end]) for end in ends
    )


def _dataset(measured: Measured, task: str) -> str:
    """The hub id of a task's questions; of the run's own rows there is none."""
    facts = (measured.tasks or {}).get(task, {})
    return str(facts["dataset"]) if facts.get("revision") else "held-out"
