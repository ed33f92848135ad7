"""The training on the page: its curves, its speed, and what it answered aloud on the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.report.charts import Chart, Series, curves
from pipeline.report.gather import lines_of
from pipeline.report.samples import LONGEST
from pipeline.report.view import RunView
from pipeline.report.words import finite, number, size

_MOST_REPLIES = 6
"""Of a question that are shown: the first, the last, and some between."""
_GREY, _FIRST, _OTHER = 1, 2, 4
"""Colours of the page: of what is compared with, of a run's curve, of a second one."""


@dataclass(frozen=True)
class Aloud:
    """A held-out question, and what the model in training said to it, by step."""

    question: str
    replies: tuple[tuple[int, str], ...]
    left_out: int
    """Replies that are not shown."""


def training_charts(views: Sequence[tuple[str, RunView]]) -> list[Chart]:
    """Loss, learning rate, gradient norm and speed by step; of two runs, one curve for each."""
    kinds = {"learning_rate": "learning rate", "grad_norm": "gradient norm"}
    charts = [curves("loss", _losses(views))]
    for key, title in kinds.items():
        series = [
            Series(name if len(views) > 1 else title, _points(view.steps, key), colour)
            for colour, (name, view) in enumerate(views, _FIRST)
        ]
        charts.append(curves(title, series, log=False if key == "learning_rate" else None))
    return [chart for chart in [*charts, _speed(views)] if chart]


def aloud(view: RunView) -> list[Aloud]:
    """Each question with some of its replies, in the order of the training."""
    found: dict[str, list[tuple[int, str]]] = {}
    for line in lines_of(view, "samples.jsonl"):
        reply = str(line["reply"])
        cut = f"{reply[:LONGEST]} ..." if len(reply) > LONGEST else reply
        found.setdefault(str(line["question"]), []).append((int(line["step"]), cut))
    return [
        Aloud(question, shown := tuple(_spread(replies)), len(replies) - len(shown))
        for question, replies in found.items()
    ]


def forgetting(view: RunView) -> str:
    """What became of the loss on general rows; empty where none was measured."""
    facts = view.facts("train")
    before, after = (facts.get(f"general_loss_{when}") for when in ("before", "after"))
    if not finite(before) or not finite(after):
        return ""
    return (
        f"Loss on general rows, which the base could do before: {number(before)} before, "
        f"{number(after)} after."
    )


def _losses(views: Sequence[tuple[str, RunView]]) -> list[Series]:
    several = len(views) > 1
    series = []
    for colour, (name, view) in enumerate(views, _FIRST):
        series.append(Series(name if several else "loss", _points(view.steps, "loss"), colour))
        evaluated = f"{name}, eval loss" if several else "eval loss"
        other = colour if several else _OTHER
        series.append(Series(evaluated, _eval_losses(view), other, dots=True))
        if not several:
            general = _points(lines_of(view, "metrics.jsonl"), "general_loss")
            series.append(Series("loss on general rows", general, _GREY, dots=True))
    return series


def _eval_losses(view: RunView) -> list[tuple[float, float]]:
    """As measured on the way; else the one at the end."""
    measured = _points(lines_of(view, "metrics.jsonl"), "eval_loss")
    final = view.facts("train").get("eval_loss")
    last = view.steps[-1]["step"] if view.steps else 0
    return measured or ([(last, final)] if finite(final) else [])


def _speed(views: Sequence[tuple[str, RunView]]) -> Chart | None:
    """Tokens a second, padding not counted; of one run with its MFU and memory."""
    title = "tokens a second"
    speeds = [lines_of(view, "speed.jsonl") for _, view in views]
    series = [
        Series(name if len(views) > 1 else title, _points(lines, "tokens_per_second"), colour)
        for colour, ((name, _), lines) in enumerate(zip(views, speeds, strict=True), _FIRST)
    ]
    chart = curves(title, series, log=False)
    return replace(chart, note=_mean_speed(speeds[0])) if chart and len(views) == 1 else chart


def _mean_speed(lines: Sequence[Mapping[str, Any]]) -> str:
    """All tokens by all seconds, the MFU of that, and the most memory."""
    timed = [line for line in lines if finite(line.get("seconds"))]
    seconds = sum(line["seconds"] for line in timed)
    if seconds <= 0:
        return ""
    means = {
        key: sum(line[key] * line["seconds"] for line in timed) / seconds
        for key in ("tokens_per_second", "mfu")
        if all(finite(line.get(key)) for line in timed)
    }
    memory = [line["memory_bytes"] for line in timed if finite(line.get("memory_bytes"))]
    parts = {
        "{:,.0f} on average": means.get("tokens_per_second"),
        "MFU {:.1%}": means.get("mfu"),
        "memory {}": size(max(memory)) if memory else None,
    }
    return ", ".join(said.format(value) for said, value in parts.items() if value is not None)


def _points(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(line["step"], line[key]) for line in lines if finite(line.get(key))]


def _spread(replies: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The first, the last and evenly some between, at most _MOST_REPLIES."""
    if len(replies) <= _MOST_REPLIES:
        return replies
    gaps = _MOST_REPLIES - 1
    return [replies[round(place * (len(replies) - 1) / gaps)] for place in range(_MOST_REPLIES)]
