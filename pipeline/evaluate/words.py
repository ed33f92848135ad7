"""The scores as a person would ask for them."""

import json
from typing import Any

from pipeline.engines.trained import shown
from pipeline.recipe.metrics import EXACT_MATCH, deciding_of
from pipeline.run import Run

_ALPHA = 0.05

Json = dict[str, Any]


def published(run: Run) -> Json:
    """results.json and, under `speed`, speed.json; engines in the order of the work.

    `method` says how the run was trained: results.json, which has the same names for every method,
    does not; `deciding` is the metric that decides. Raises MissingInput before `pipe eval` has run.
    """
    section = run.require("eval").section
    order = section["engines"]
    folder = run.folder("eval")
    results: Json = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for task in (results, *results["tasks"].values()):
        engines = task["engines"]
        task["engines"] = {name: engines[name] for name in order if name in engines}
    results["method"] = section.get("method")
    results["deciding"] = deciding_of(section["eval"]["metrics"])
    speed = folder / "speed.json"
    results["speed"] = json.loads(speed.read_text(encoding="utf-8")) if speed.exists() else {}
    return results


def in_words(task: Json, method: str | None = None, deciding: str = EXACT_MATCH) -> str:
    """What a task's comparisons of the deciding metric say, in one sentence; empty without any.

    By the `method` that a run was trained with its tuned model is called.
    """
    engines = task["engines"]
    parts = []
    for each in task["comparisons"]:
        if each["metric"] == deciding:
            values = [engines[each[side]][deciding]["value"] for side in ("from", "to")]
            say = _gained if each["from"] == "base" else _kept
            if deciding != EXACT_MATCH:
                say = _moved
            names = {side: shown(each[side], method) for side in ("from", "to")}
            parts.append(say(each | names, *values))
    return "; ".join(parts)


def _gained(each: Json, before: float, after: float) -> str:
    change = each["change"]
    points = f"{_signed(change)} points ({_signed(change, 'low')} to {_signed(change, 'high')})"
    return (
        f"{each['to']} answers {after:.1%} right where {each['from']} answered {before:.1%}: "
        f"{points}{_in_percent(before, after)} ({_certainty(each['p_value'])})"
    )


def _moved(each: Json, before: float, after: float) -> str:
    """Of any other metric, in its own units."""
    change = each["change"]
    return (
        f"{each['to']} has {each['metric']} {after:.3g} where {each['from']} had {before:.3g}: "
        f"{change['value']:+.3g} ({change['low']:+.3g} to {change['high']:+.3g}) "
        f"({_certainty(each['p_value'])})"
    )


def _in_percent(before: float, after: float) -> str:
    if not before or before == after:
        return ""
    if after >= 2 * before:
        return f", {after / before:.3g} times as many"
    return f", {abs(after / before - 1):.1%} {'more' if after > before else 'fewer'}"


def _kept(each: Json, before: float, after: float) -> str:
    if before == after:
        return f"{each['to']} answers as many right as {each['from']}"
    verb = "gains" if after > before else "loses"
    points = 100 * abs(after - before)
    return f"{each['to']} {verb} {points:.1f} points ({_certainty(each['p_value'])})"


def _signed(change: Json, key: str = "value") -> str:
    return f"{100 * change[key]:+.1f}"


def _certainty(p_value: float) -> str:
    if p_value < 0.0001:
        return "p < 0.0001"
    return f"p = {p_value:.2g}" + ("" if p_value < _ALPHA else ", not significant")
