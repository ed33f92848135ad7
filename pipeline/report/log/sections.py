"""What the log says of the run itself: set-up, settings, memory, losses, scores, gates."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import log, nan
from typing import Any

from pipeline.engines.trained import FULL
from pipeline.recipe.training import UNSEEN
from pipeline.report.deciding import comparison
from pipeline.report.gather import lines_of
from pipeline.report.licences import duties_of
from pipeline.report.reproduce import provenance
from pipeline.report.summary import Answer
from pipeline.report.view import RunView
from pipeline.report.words import finite, metric, metrics_of, number, odds, plural, size
from pipeline.run import Stage
from pipeline.run.manifest import NAME, TIMING

NOTHING = "–"
PARTS = 10
"""Of a training whose mean losses are shown."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_RAN = ("precision", "optimizer", "batching", "batch_size", "gradient_accumulation",
        "gradient_checkpointing")  # fmt: skip
"""Settings that a machine may have done otherwise: what really ran stands in the facts."""
_MEMORY = {"resident": "resident", "gpu_allocated": "GPU, allocated", "gpu_reserved": "GPU, taken"}


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def when(view: RunView) -> str:
    """When the first and the last stage finished, UTC: as timing.json says, else as its file's."""
    found = {stage: _finished(view, stage) for stage in view.manifests}
    times = sorted(time or _written(view, stage) for stage, time in found.items())
    first, last = (f"{times[place]:%Y-%m-%d %H:%M}" for place in (0, -1))
    day = first.partition(" ")[0]
    end = "" if first == last else f" to {last.removeprefix(f'{day} ')}"
    return f"{first}{end} UTC" + ("" if all(found.values()) else ", by the dates of their files")


def paragraph(answers: Iterable[Answer]) -> list[tuple[str, str]]:
    """(question, answer) as on top of the report's page, without the commands."""
    return [
        (each.question, " ".join(filter(None, [f"{each.headline}.", *each.text])))
        for each in answers
    ]


def setup(view: RunView) -> Table:
    """Machine, seed, base and data with their hashes, licences, versions."""
    facts = view.facts("train")
    versions = {name for made in view.manifests.values() for name in made.versions}
    known = provenance(view)
    rows = [("trained on", _machine(facts))] if facts else []
    rows += [each for each in known if each[0] not in versions]
    rows += [
        (f"licence of {duty.of}", f"{duty.licence or 'not known'}; {duty.text}")
        for duty in duties_of(view)
    ]
    rows.append(("versions", ", ".join(" ".join(each) for each in known if each[0] in versions)))
    return Table(("what", "which"), rows)


def settings(view: RunView) -> Table:
    """What training was told, keys as `--set` takes them; and what ran where that was another."""
    if "train" not in view.manifests:
        return Table((), ())
    section, facts = view.manifests["train"].section, view.facts("train")
    asked = {f"train.{key}": value for key, value in section.get("train", {}).items()}
    lora = asked.pop("train.lora", None)
    if lora and facts.get("method", asked.get("train.method")) != FULL:
        asked |= {f"train.lora.{key}": value for key, value in lora.items()}
    longest = section.get("model", {}).get("max_seq_length")
    asked |= {"model.max_seq_length": longest, "seed": view.manifests["train"].seed}
    rows = [
        (key, _said(value), _said(facts[name]) if _differs(facts, name, value) else "")
        for key, value in asked.items()
        for name in [key.removeprefix("train.")]
        if value not in (None, [], ()) and name not in UNSEEN
    ]
    return Table(("setting", "asked", "ran as"), rows)


def peaks(view: RunView) -> Table:
    """The most memory that training took, by kind."""
    peak = view.log.get("peak_memory_bytes") or {}
    rows = [(name, size(peak[key])) for key, name in _MEMORY.items() if finite(peak.get(key))]
    return Table(("memory of the training process", "at the peak"), rows)


def scores(view: RunView) -> list[tuple[str, Table]]:
    """(task and its questions, what each metric was before and after)."""
    tuned = view.tuned
    found = []
    for name, task in view.tasks.items():
        engines = task.get("engines", {})
        rows = [_change(view, name, each, tuned) for each in metrics_of(engines)] if tuned else []
        title = f"{name}: {plural(int(task.get('items', 0)), 'question')}"
        head = ("metric", "before", "after", "change", "relative", "by chance")
        found.append((title, Table(head, [row for row in rows if row])))
    return found


def doubts(view: RunView) -> dict[str, str]:
    """Stage -> why what it found does not hold of what is there now; empty where it does."""
    return {
        "eval": view.doubt("eval") if view.results else "",
        "check": view.doubt("check") if view.checks else "",
    }


def losses(view: RunView) -> dict[str, Any]:
    """A sparkline and the mean loss by parts of the training, and the losses at its ends."""
    if not view.steps:
        return {}
    steps = view.steps
    cuts = [len(steps) * place // PARTS for place in range(PARTS + 1)]
    parts = [steps[start:end] for start, end in pairwise(cuts) if end > start]
    means = [_mean(step.get("loss") for step in part) for part in parts]
    eval_losses = [line for line in lines_of(view, "metrics.jsonl") if "eval_loss" in line]
    rows = [
        (_steps(part), number(mean), _within(part, eval_losses))
        for part, mean in zip(parts, means, strict=True)
    ]
    return {
        "spark": _spark(means),
        "parts": Table(("steps", "training loss, mean", "validation loss"), rows),
        "ends": Table(("loss", "at the beginning", "at the end"), list(_ends(view))),
    }


def gates(view: RunView) -> list[tuple[str, list[dict[str, Any]]]]:
    """(group, its gates) in the order of the checks."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for gate in view.checks.get("gates", ()):
        groups.setdefault(gate.get("group") or "gates", []).append(gate)
    return list(groups.items())


def changed(name: str, before: Any, after: Any) -> tuple[str, str]:
    """The difference of two figures of a metric, in points or its unit, and in percent."""
    if not finite(before) or not finite(after):
        return NOTHING, NOTHING
    percent = 100 * (after - before) / abs(before) if before else None
    relative = (
        NOTHING if percent is None else f"{'−' if percent < 0 else '+'}{number(abs(percent))}%"
    )
    return metric(name).change(after - before), relative


def ranged(name: str, value: Mapping[str, Any] | None) -> str:
    """A figure with its 95% interval."""
    between = metric(name).between(value)
    return metric(name).shown(value) + (f" ({between})" if between else "")


def _finished(view: RunView, stage: Stage) -> datetime | None:
    """None of a stage that kept no date."""
    try:
        timing = (view.run.folder(stage) / TIMING).read_text(encoding="utf-8")
        return datetime.fromisoformat(json.loads(timing)["finished"]).astimezone(UTC)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _written(view: RunView, stage: Stage) -> datetime:
    """A copied run has later dates."""
    return datetime.fromtimestamp((view.run.folder(stage) / NAME).stat().st_mtime, UTC)


def _machine(facts: Mapping[str, Any]) -> str:
    device = "a CPU" if facts.get("device") == "cpu" else str(facts.get("device", "not recorded"))
    processes = facts.get("processes") or 1
    several = f"{processes} processes" if processes > 1 else ""
    return ", ".join(filter(None, (device, str(facts.get("precision", "")), several)))


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _differs(facts: Mapping[str, Any], name: str, asked: Any) -> bool:
    return name in _RAN and name in facts and facts[name] != asked


def _change(view: RunView, task: str, name: str, tuned: str) -> tuple[str, ...] | None:
    """A metric before and after; None where it was not measured on both."""
    found = view.tasks[task]
    before, after = (found["engines"].get(each, {}).get(name) for each in ("base", tuned))
    if not before or not after:
        return None
    test = comparison(view, name, "base", tuned, task)
    points, relative = changed(name, before.get("value"), after.get("value"))
    interval = metric(name).changes(test["change"]) if test else ""
    return (
        metric(name).label,
        ranged(name, before),
        ranged(name, after),
        points + (f" ({interval})" if interval else ""),
        relative,
        odds(test.get("p_value"), test["change"]) if test else NOTHING,
    )


def _mean(values: Iterable[Any]) -> float:
    """Of losses, one that is no number among them included: then the mean is none either."""
    known = [value if finite(value) else nan for value in values]
    return sum(known) / len(known)


def _steps(part: Sequence[Mapping[str, Any]]) -> str:
    first, last = part[0]["step"], part[-1]["step"]
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def _within(part: Sequence[Mapping[str, Any]], lines: Iterable[Mapping[str, Any]]) -> str:
    """The last loss on the eval rows that was measured in a part of the training."""
    first, last = part[0]["step"], part[-1]["step"]
    found = [line["eval_loss"] for line in lines if first <= line["step"] <= last]
    return number(found[-1]) if found else NOTHING


def _spark(means: Sequence[float]) -> str:
    """One block a mean, by its logarithm: the first steps would flatten all others."""
    if len(means) < 2 or not all(finite(mean) and mean > 0 for mean in means):
        return ""
    heights = [log(mean) for mean in means]
    low, width = min(heights), max(heights) - min(heights)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(top * (each - low) / width) if width else 0] for each in heights)


def _ends(view: RunView) -> Iterator[tuple[str, str, str]]:
    facts = view.facts("train")
    first, last = (number(view.steps[place].get("loss")) for place in (0, -1))
    yield "training", first, last
    if finite(facts.get("eval_loss")):
        yield "validation: rows that only steer", NOTHING, number(facts["eval_loss"])
    general = [facts.get(f"general_loss_{when}") for when in ("before", "after")]
    if any(finite(each) for each in general):
        before, after = (number(each) if finite(each) else NOTHING for each in general)
        yield "general rows, which the base could do before", before, after
