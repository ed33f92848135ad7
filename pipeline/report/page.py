"""report.html: all that a run did, on one page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipeline import __version__
from pipeline.card.licences import of_data
from pipeline.report.charts import (
    Point,
    divergence_chart,
    interval_bar,
    lengths_chart,
    points_chart,
    shares_bar,
)
from pipeline.report.deciding import comparisons, main_metric
from pipeline.report.gather import gather
from pipeline.report.histogram import bins_of
from pipeline.report.licences import duties_of
from pipeline.report.prices import scatters
from pipeline.report.render import write_page
from pipeline.report.reproduce import commands, pinned_recipe, provenance
from pipeline.report.samples import LONGEST, samples
from pipeline.report.summary import gate_counts, summary
from pipeline.report.training import aloud, forgetting, training_charts
from pipeline.report.view import Gap, RunView
from pipeline.report.words import Value, finite, metric, metrics_of, number, odds, share, size
from pipeline.run import Run

_SHOWN = ("well_formed", "truncated", "reply_tokens", "thinking_tokens")
"""Metrics of the first table beside the one that decides; the rest are folded."""


def write_report(run: Run, options: str | None = None) -> tuple[Path, list[Gap]]:
    """Write report.html; return its path, and what is missing or no longer true.

    `options` follow the `pipe` commands on the page, such as `-r demo`; None takes the run's own
    recipe.yaml.
    Raises MissingInput where no stage has finished.
    """
    view = gather(run, options)
    drawn = scatters(view)
    path = write_page(
        run.root / "report.html",
        "page.html.jinja",
        view=view,
        version=__version__,
        answers=summary(view),
        charts=training_charts([("loss", view)]),
        aloud=aloud(view),
        forgetting=forgetting(view),
        data=_data(view),
        tasks=[
            _task(view, name, task) | {"scatters": drawn.get(name, [])}
            for name, task in view.tasks.items()
        ],
        quality=_quality(view),
        samples=samples(view),
        longest=LONGEST,
        gates=_gates(view),
        gate_counts=gate_counts(view),
        duties=duties_of(view),
        files=_files(view),
        commands=commands(view),
        recipe=pinned_recipe(view),
        provenance=provenance(view),
    )
    return path, [*view.gaps.values(), *view.warnings, *view.freed_gaps]


def _data(view: RunView) -> dict[str, Any]:
    """Lengths, and what became of the records of each source."""
    stats = view.stats
    if not stats:
        return {}
    limit = view.manifests["data"].section.get("model", {}).get("max_seq_length")
    facts = view.facts("data")
    read = [*facts.get("sources", ()), *filter(None, [facts.get("test"), facts.get("general")])]
    known = {(each["dataset"], each.get("config")): each for each in read}
    return {
        "lengths": lengths_chart(bins_of(view.run, stats), limit),
        "tokens": {split: found for split, found in stats["tokens"].items() if found},
        "supervised": stats.get("supervised_tokens", {}),
        "rows": stats["rows"],
        "sources": [
            source | {"bar": _fate(source), "licence": of_data(fact), "duties": fact.get("duties")}
            for source in stats["sources"]
            for fact in [known.get((source["dataset"], source["config"]), source)]
        ],
    }


def _fate(source: Mapping[str, Any]) -> Markup:
    """Rows kept, then those dropped by reason, then those beyond the source's weight."""
    rejects = sorted(source["rejects"].items(), key=lambda each: (-each[1], each[0]))
    parts = [("kept", source["rows"], "kept")]
    parts += [
        (f"dropped: {reason.replace('_', ' ')}", count, f"drop{min(place, 3)}")
        for place, (reason, count) in enumerate(rejects)
    ]
    return shares_bar([*parts, ("beyond its weight or share", source.get("left_out", 0), "spare")])


def _task(view: RunView, name: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """One task's table: the deciding metric with its bar, some beside it, all of them folded."""
    engines = task["engines"]
    names = metrics_of(engines)
    first = main_metric(view, engines)
    return {
        "name": name,
        "items": task.get("items", 0),
        "samples": task.get("samples", 1),
        "decoding": task.get("decoding") or {},
        "first": first,
        "shown": [each for each in _SHOWN if each in names and each != first],
        "metrics": names,
        "engines": engines,
        "speed": view.speed.get(name, {}),
        "bars": {each: _bars(each, engines) for each in names},
        "comparisons": [
            each | {"words": odds(each.get("p_value"), each["change"])}
            for each in comparisons(view, name)
        ],
    }


def _bars(name: str, engines: Mapping[str, Mapping[str, Any]]) -> dict[str, Markup]:
    """Every engine's interval on one scale: 0 to 1 for shares, else from 0 to the largest."""
    values = {engine: scores[name] for engine, scores in engines.items() if scores.get(name)}
    ends = [v.get(end) for v in values.values() for end in ("low", "value", "high")]
    ends = [end for end in ends if finite(end)]
    top = 1.0 if metric(name).form is share else max(map(abs, ends), default=0.0) or 1.0
    low = min([0.0, *ends])
    return {
        engine: interval_bar(value, low, top, 1 if engine == "base" else 2)
        for engine, value in values.items()
    }


def _quality(view: RunView) -> dict[str, Any]:
    """What each quantized file keeps, for its size and its speed."""
    name = main_metric(view)
    speed = view.speed.get(view.lead, {})
    values: dict[str, Value] = {
        kind: value for kind in view.files if (value := view.engines.get(kind, {}).get(name))
    }
    label, form = metric(name).label, metric(name).form
    by_size = [Point(k, view.sizes[k], v, 2) for k, v in values.items() if k in view.sizes]
    rates = {kind: speed.get(kind, {}).get("tokens_per_s") for kind in values}
    by_speed = [Point(k, rates[k], v, 2) for k, v in values.items() if rates[k]]
    charts = [
        points_chart(f"{label} by size", by_size, ("file size", label), (size, form)),
        points_chart(f"{label} by speed", by_speed, ("tokens a second", label), (number, form)),
        divergence_chart(view.checks.get("precision", {})),
    ]
    return {
        "charts": [chart for chart in charts if chart],
        "precision": view.checks.get("precision", {}),
    }


def _gates(view: RunView) -> list[dict[str, Any]]:
    """Gates by group, in the order of the checks; a group with a failure first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for gate in view.checks.get("gates", ()):
        groups.setdefault(gate.get("group") or "gates", []).append(gate)
    found = [
        {"name": name, "gates": gates, "worst": _worst(gates)} for name, gates in groups.items()
    ]
    order = ("failed", "not_run", "passed")
    return sorted(found, key=lambda group: order.index(str(group["worst"])))


def _worst(gates: list[dict[str, Any]]) -> str:
    statuses = {gate["status"] for gate in gates}
    return next((each for each in ("failed", "not_run") if each in statuses), "passed")


def _files(view: RunView) -> list[dict[str, Any]]:
    """What the run left to keep: GGUFs, Modelfiles, card, and the weights that were trained."""
    found = []
    for stage in ("export", "train"):
        manifest = view.manifests.get(stage)
        for name, entry in manifest.outputs.items() if manifest else ():
            if stage == "export" or name.endswith(".safetensors"):
                file = {"name": f"{stage}/{name}", "bytes": entry.bytes, "sha256": entry.sha256}
                found.append(file | {"freed": name in view.freed.get(stage, ())})
    first = [f"export/{file}" for file in view.files.values()]
    return sorted(
        found, key=lambda file: first.index(file["name"]) if file["name"] in first else 99
    )
