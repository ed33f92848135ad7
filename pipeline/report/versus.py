"""Two runs on one page: what was different, and what came of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os.path import commonpath
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.recipe import leaves
from pipeline.recipe.metrics import has_each
from pipeline.report.deciding import main_metric
from pipeline.report.gather import gather
from pipeline.report.paired import Paired, paired_tests
from pipeline.report.render import write_page
from pipeline.report.summary import (
    Answer,
    Tone,
    base_name,
    datasets,
    gate_counts,
    method,
    summary,
    verdict,
)
from pipeline.report.training import training_charts
from pipeline.report.view import Gap, RunView
from pipeline.report.words import (
    by_chance,
    duration,
    listed,
    metric,
    metrics_of,
    number,
    odds,
    size,
)
from pipeline.run import Run

_NOTHING = "–"
Engines = Mapping[str, Mapping[str, Any]]
Tested = tuple[str, Mapping[str, Paired]]
"""The metric that decides, and its test of each engine."""


def write_versus(one: Run, other: Run) -> tuple[Path, list[Gap]]:
    """Write report-RUN1-vs-RUN2.html beside the first run; return its path, and what is missing.

    Raises MissingInput where one of them has no finished stage.
    """
    views = gather(one), gather(other)
    names = _names(one, other)
    task = next((name for name in views[0].tasks if name in views[1].tasks), None)
    engines = tuple(view.tasks[task]["engines"] if task else {} for view in views)
    deciding = main_metric(views[0], engines[0])
    tests = paired_tests(*views, task, deciding) if task else {}
    path = write_page(
        one.root.parent / f"report-{one.name}-vs-{other.name}.html",
        "versus.html.jinja",
        version=__version__,
        names=names,
        views=views,
        warnings=_warnings(views, names),
        headline=_doubted(_headline(views, engines, names, (deciding, tests)), views, names),
        answers=_answers(views, names),
        facts=list(_facts(views)),
        changes=_changes(views),
        task=task,
        scores=list(_scores(views, engines, (deciding, tests))),
        metric=deciding,
        charts=training_charts(list(zip(names, views, strict=True))),
        sizes=_sizes(views),
        gates=_gates(views),
    )
    return path, [
        gap for view in views for gap in (*view.gaps.values(), *view.warnings, *view.freed_gaps)
    ]


def _names(one: Run, other: Run) -> tuple[str, str]:
    """The runs' names; for two of the same name, their paths below what these share."""
    if one.name != other.name:
        return one.name, other.name
    paths = [run.root.resolve() for run in (one, other)]
    shared = commonpath(paths)
    return str(paths[0].relative_to(shared)), str(paths[1].relative_to(shared))


def _warnings(views: tuple[RunView, RunView], names: tuple[str, str]) -> list[Gap]:
    return [
        Gap(f"{name}: {gap.text}", gap.command)
        for name, view in zip(names, views, strict=True)
        for gap in (*view.warnings, *view.gaps.values(), *view.freed_gaps)
    ]


def _shown(views: tuple[RunView, RunView], engine: str) -> str:
    """An engine's name for people; both names where the runs were trained by other methods."""
    return " / ".join(dict.fromkeys(view.shown(engine) for view in views))


def _headline(
    views: tuple[RunView, RunView],
    engines: Sequence[Engines],
    names: tuple[str, str],
    tested: Tested,
) -> Answer:
    """Which tuned model is the better one."""
    name, tests = tested
    answer = Answer("Which is better?", "No task was measured in both", "warn")
    common = [name for name in engines[0] if name in engines[1] and name != "base"]
    engine = next(iter(common), "")
    first, second = (each.get(engine, {}).get(name) for each in engines)
    if not first or not second:
        return answer
    kind, test = metric(name), tests.get(engine)
    word, tone = verdict(name, first, second, test.as_comparison() if test else {})
    heads: dict[Tone, str] = {"good": names[1], "bad": names[0]}
    answer.headline = heads.get(tone, word)
    answer.tone = "good" if tone in heads else "warn"
    of = f"{kind.label} of {_shown(views, engine)}"
    answer.text.append(f"{of}: {kind.shown(first)} → {kind.shown(second)}.")
    answer.text.append(_tested(name, test))
    return answer


def _tested(name: str, test: Paired | None) -> str:
    if not has_each(name):
        return "It is of all answers together, which no paired test can tell: see the intervals."
    if test is None:
        return "Nothing shows that they were asked the same questions, so only the intervals tell."
    kind = metric(name)
    return (
        f"On {test.questions:,} questions that both answered: "
        f"{kind.change(test.change['value'])} (95% interval {kind.changes(test.change)}). "
        f"{by_chance(test.p_value, test.change)}"
    )


def _doubted(answer: Answer, views: tuple[RunView, RunView], names: tuple[str, str]) -> Answer:
    """No winner where a run's scores are not those of what it has now."""
    doubts = [
        f"{name}: {doubt[0].lower()}{doubt[1:]}"
        for name, view in zip(names, views, strict=True)
        if view.results and (doubt := view.doubt("eval"))
    ]
    return replace(answer, headline="; ".join(doubts), tone="warn") if doubts else answer


def _answers(views: tuple[RunView, RunView], names: tuple[str, str]) -> list[Answer]:
    """The answers of each run's own page, those to one question side by side."""
    pairs = zip(*(summary(view) for view in views), strict=True)
    return [
        replace(answer, question=f"{name}: {answer.question}")
        for pair in pairs
        for name, answer in zip(names, pair, strict=True)
    ]


def _facts(views: tuple[RunView, RunView]) -> Iterator[tuple[str, str, str]]:
    """(what, first, second)."""
    for label, say in _SAID.items():
        found = [say(view) or _NOTHING for view in views]
        if found != [_NOTHING, _NOTHING]:
            yield label, found[0], found[1]


def _counts(view: RunView) -> str:
    if not view.checks:
        return ""
    return ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in gate_counts(view).items())


def _loss(view: RunView, key: str) -> str:
    found = view.facts("train").get(key)
    return "" if found is None else number(found)


def _file(view: RunView) -> str:
    return next((f"{kind}, {size(count)}" for kind, count in view.sizes.items()), "")


def _count(view: RunView, stage: Any, name: str) -> str:
    manifest = view.manifests.get(stage)
    return f"{manifest.counts.get(name, 0):,}" if manifest else ""


def _time(view: RunView) -> str:
    seconds = view.log.get("seconds", {}).get("train")
    return duration(seconds) if seconds else ""


_SAID = {
    "base": base_name,
    "data": lambda view: listed(datasets(view)),
    "training rows": lambda view: _count(view, "data", "train"),
    "method": lambda view: method(view) if "train" in view.manifests else "",
    "steps": lambda view: _count(view, "train", "steps"),
    "device": lambda view: view.facts("train").get("device"),
    "training time": _time,
    "last loss": lambda view: number(view.steps[-1].get("loss")) if view.steps else "",
    "eval loss": lambda view: _loss(view, "eval_loss"),
    "first file": _file,
    "gates": _counts,
}


def _changes(views: tuple[RunView, RunView]) -> list[tuple[str, str, str]]:
    """(key, first, second) for what the recipes say differently."""
    first, second = ({key: _said(value) for key, value in leaves(view.recipe)} for view in views)
    keys = [*first, *(key for key in second if key not in first)]
    return [
        (key, first.get(key, _NOTHING), second.get(key, _NOTHING))
        for key in keys
        if first.get(key) != second.get(key) and key not in ("name", "description")
    ]


def _said(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else value
    return "none" if text in (None, "", {}) else str(text)


def _scores(
    views: tuple[RunView, RunView], engines: Sequence[Engines], tested: Tested
) -> Iterator[dict[str, Any]]:
    """One row for each engine and metric that both runs have; the deciding metric's tested."""
    first, second = engines
    deciding, tests = tested
    for name in metrics_of(first):
        for engine in first:
            before, after = first[engine].get(name), second.get(engine, {}).get(name)
            values = [each.get("value") for each in (before, after) if each]
            if len(values) < 2 or None in values:
                continue
            test = tests.get(engine) if name == deciding else None
            yield {
                "metric": name,
                "engine": _shown(views, engine),
                "pair": (before, after),
                "change": values[1] - values[0],
                "test": test,
                "words": odds(test.p_value, test.change) if test else "",
            }


def _sizes(views: tuple[RunView, RunView]) -> list[tuple[str, int | None, int | None]]:
    first, second = (view.sizes for view in views)
    kinds = [*first, *(kind for kind in second if kind not in first)]
    return [(kind, first.get(kind), second.get(kind)) for kind in kinds]


def _gates(views: tuple[RunView, RunView]) -> list[tuple[str, str | None, str | None]]:
    """(name, first status, second status), those that differ first."""
    first, second = (
        {gate["name"]: gate["status"] for gate in view.checks.get("gates", ())} for view in views
    )
    names = [*first, *(name for name in second if name not in first)]
    found = [(name, first.get(name), second.get(name)) for name in names]
    return sorted(found, key=lambda gate: gate[1] == gate[2])
