"""The table of a comparison, from what each variant's stages left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.engines.trained import TUNED
from pipeline.recipe.metrics import deciding_metric
from pipeline.report.gather import gather, lines_of
from pipeline.report.view import RunView
from pipeline.report.words import finite
from pipeline.run import Entry, Run, Stage
from pipeline.run.studies import SCHEMA, recorded, study_results
from pipeline.study.compare.best import choose
from pipeline.study.compare.plan import Comparison, obeys
from pipeline.study.compare.vary import Variant
from pipeline.study.sheet import csv_of

Found = dict[str, Any]
_VALUE = ("value", "low", "high")
_ASKED = {"before": "base", "after": TUNED}
_FIGURES = (
    "method",
    "trainable_parameters",
    "total_parameters",
    "memory_bytes",
    "seconds",
    "tokens_per_second",
    "steps",
    "train_loss",
    "eval_loss",
    "general_loss_before",
    "general_loss_after",
    "before",
    "after",
)


def results_of(plan: Comparison, failures: Mapping[str, str]) -> Found:
    """results.json: equal work gives equal values, but for memory, times and what follows of them.

    `failures` is label -> reason. Savings and speed-ups are against the first variant that is done.
    """
    rows, views = [], {}
    for variant in plan.variants:
        view = _view(plan, variant)
        row = _row(plan, variant, view, failures.get(variant.label))
        rows.append(row)
        if view and row["status"] == "done":
            views[variant.label] = view
    done = [row for row in rows if row["status"] == "done"]
    reference = done[0] if done else None
    for row in rows:
        row.update(_against(row, reference))
    metric, asked = deciding_metric(plan.work.recipe), "eval" in plan.stages
    choice = choose(done, views, plan.vary, metric, asked=asked)
    for row in rows:
        row["against_most_accurate"] = choice.tests.get(row["label"])
    return {
        "schema": SCHEMA,
        "inputs": recorded(_inputs(plan, views)),
        "recipe": plan.work.recipe.name,
        "vary": plan.vary,
        "stages": [*plan.stages, *(["export"] if plan.export else [])],
        "rule": choice.rule,
        "best": choice.best,
        "reference": reference["label"] if reference else rows[0]["label"],
        "device": _device(views),
        "task": next((view.lead for view in views.values() if view.results), None),
        "questions": next((view.results["items"] for view in views.values() if view.results), None),
        "variants": rows,
    }


def last(run: Run) -> Found | None:
    """What the last comparison of a run found; None where there is none.

    Raises ChangedInput where its file is no such result.
    """
    return study_results(run, "compare")


def _inputs(plan: Comparison, views: Mapping[str, RunView]) -> dict[str, Entry]:
    """The manifests of what the variants left, and of the run's own rows where one shares them."""
    own = plan.work.run
    read: tuple[Stage, ...] = ("data", *plan.stages)
    found: dict[str, Entry] = {}
    for view in views.values():
        where = view.run.root.relative_to(own.root).as_posix()
        for stage in (stage for stage in read if stage in view.manifests):
            found |= {f"{where}/{n}": entry for n, entry in view.run.input_entry(stage).items()}
    rows = own.input_entry("data") if own.last("data") else {}
    shared = {entry for name, entry in found.items() if name.endswith("data/manifest.json")}
    return found | {name: entry for name, entry in rows.items() if entry in shared}


def _view(plan: Comparison, variant: Variant) -> RunView | None:
    """None where its training has not ended, or was another."""
    run = plan.run(variant)
    if variant.recipe is None or not obeys(variant.recipe, run, "train"):
        return None
    return gather(run, "")


def _row(plan: Comparison, variant: Variant, view: RunView | None, failure: str | None) -> Found:
    metric = deciding_metric(plan.work.recipe)
    status = "refused" if variant.recipe is None else "failed" if failure else "done"
    figures = dict.fromkeys(_FIGURES)
    if view:
        figures |= _trained(view)
    if view and "eval" in plan.stages and status == "done":
        figures |= {when: _score(view, engine, metric) for when, engine in _ASKED.items()}
    return {
        "label": variant.label,
        "settings": dict(variant.settings),
        "run": Path("runs", variant.label).as_posix(),
        "status": status,
        "reason": variant.reason or failure,
        "metric": metric,
        "files": _files(view, metric) if view and plan.export and status == "done" else {},
        **figures,
    }


def _trained(view: RunView) -> Found:
    """What training took and left: bytes, seconds, parameters, nats a token.

    Seconds are those of all steps as speed.jsonl has them, so that a training that was stopped
    and gone on with counts whole; memory is the peak of the process, on a GPU what it reserved.
    """
    facts, memory = view.facts("train"), view.log.get("peak_memory_bytes") or {}
    speeds = [each for each in lines_of(view, "speed.jsonl") if finite(each.get("seconds"))]
    seconds = sum(each["seconds"] for each in speeds)
    tokens = sum(each["seconds"] * each["tokens_per_second"] for each in speeds)
    same = ("method", "trainable_parameters", "total_parameters")
    losses = ("eval_loss", "general_loss_before", "general_loss_after")
    return {key: facts.get(key) for key in (*same, *losses)} | {
        "train_loss": facts.get("final_loss"),
        "memory_bytes": memory.get("gpu_reserved") or memory.get("resident"),
        "seconds": round(seconds, 3) if speeds else None,
        "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        "steps": view.manifests["train"].counts.get("steps"),
    }


def _score(view: RunView, engine: str, metric: str) -> Found | None:
    """The metric on the leading task with its 95% interval; None where it was not measured."""
    found = view.engines.get(engine, {}).get(metric)
    return {key: found[key] for key in _VALUE} if found else None


def _files(view: RunView, metric: str) -> Found:
    """Quantization type -> its score and its bytes."""
    return {
        kind: {**(_score(view, kind, metric) or dict.fromkeys(_VALUE)), "bytes": size}
        for kind, size in view.sizes.items()
    }


def _against(row: Found, reference: Found | None) -> Found:
    """The share of memory saved, and how many times as fast, against the reference."""
    found: Found = {"memory_saving": None, "speed_up": None}
    if reference is None or row["status"] != "done":
        return found
    if reference["memory_bytes"] and row["memory_bytes"] is not None:
        found["memory_saving"] = round(1 - row["memory_bytes"] / reference["memory_bytes"], 4)
    if reference["seconds"] and row["seconds"]:
        found["speed_up"] = round(reference["seconds"] / row["seconds"], 3)
    return found


def _device(views: Mapping[str, RunView]) -> str | None:
    return next((str(view.facts("train")["device"]) for view in views.values()), None)


def as_csv(results: Found) -> str:
    """One line a variant: its settings in columns of their own, then its figures."""
    return csv_of([_line(row) for row in results["variants"]])


def _line(row: Found) -> Found:
    """Memory in GB, shares in percent; scores and losses as they are."""
    trained, all_, memory = (
        row[key] for key in ("trainable_parameters", "total_parameters", "memory_bytes")
    )
    saving = row["memory_saving"]
    figures = {key: row[key] for key in _FIGURES[:-2] if key != "memory_bytes"}
    scores = {
        f"{when}_{end}": (row[when] or {}).get(end)
        for when in ("before", "after")
        for end in _VALUE
    }
    return {
        "label": row["label"],
        "status": row["status"],
        **row["settings"],
        **figures,
        "metric": row["metric"],
        "trainable_percent": round(100 * trained / all_, 2) if trained and all_ else None,
        "memory_gb": None if memory is None else round(memory / 1e9, 3),
        "memory_saving_percent": None if saving is None else round(100 * saving, 2),
        "speed_up": row["speed_up"],
        **scores,
        "reason": row["reason"],
    }
