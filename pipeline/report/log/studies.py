"""What the log says of variants and of precisions: of `pipe compare` and `pipe quant`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ChangedInput
from pipeline.report import compare_words as told
from pipeline.report.deciding import main_metric
from pipeline.report.log.sections import NOTHING, Table, changed, ranged
from pipeline.report.view import Gap, RunView
from pipeline.report.words import finite, metric, number, share, size
from pipeline.run.studies import Study as Kind
from pipeline.run.studies import study_command, study_doubt, study_results

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """Tables by name, what to say beneath them, and the rows that were not measured, with why."""

    command: str
    """What fills it."""
    tables: Mapping[str, Table] = field(default_factory=dict)
    said: str = ""
    missing: tuple[tuple[str, str], ...] = ()
    gap: Gap | None = None
    """Why it cannot be read, or is not of what is there now."""


class _Known(dict[str, Any]):
    """A row of which a figure that an older or cut-off study does not have is None."""

    def __missing__(self, key: str) -> None:
        return None


def comparison(view: RunView) -> Study:
    """The variants of compare/results.json, in the words of its own page."""
    found, command, gap = _read(view, "compare")
    variants = [
        _Known({"settings": {}, "metric": "exact_match"} | each)
        for each in found.get("variants") or ()
    ]
    if not variants:
        return Study(command, gap=gap)
    results = _Known(found | {"variants": variants})
    done, label = told.done(results), told.deciding(results).label
    scores = (
        "variant", "settings", "trainable parameters", "train loss", "eval loss",
        "general loss", f"{label} before", "after", "change",
    )  # fmt: skip
    costs = ("variant", "memory (GB)", "saved", "training time", "speed-up", "tokens/s")
    tables = {
        "scores": Table(scores, [_scored(each) for each in done]),
        "costs": Table(costs, [_cost(each) for each in done]),
    }
    best = told.optimal(results) or "No variant is named best."
    said = (gap.text if gap else "", best, results["rule"])
    missing = tuple(_not_done(each) for each in told.left_out(results))
    return Study(command, tables, " ".join(filter(None, said)), missing, gap)


def quantization(view: RunView) -> Study:
    """What each precision of quant/results.json takes and keeps."""
    found, command, gap = _read(view, "quant")
    rows = list(found.get("rows") or ())
    if not rows:
        return Study(command, gap=gap)
    layers = found.get("layers") or {}
    head = ("method", "family", "bits a weight", "weights", "memory", "tokens/s", "perplexity",
            "KL", "same top token", "score", "worst layer")  # fmt: skip
    measured = [each for each in rows if each.get("status") == "measured"]
    table = Table(head, [_precision(each, layers) for each in measured])
    missing = tuple(_not_done(each) for each in rows if each not in measured)
    said = " ".join(filter(None, (gap.text if gap else "", _in_words(found))))
    return Study(command, {"precisions": table}, said, missing, gap)


def exported(view: RunView) -> Table:
    """The files of the run itself: size, what they lost, how they answer."""
    name, tuned = main_metric(view), view.engines.get(view.tuned or "", {})
    speeds, precision = view.speed.get(view.lead, {}), view.checks.get("precision", {})
    rows = []
    for kind, file in view.files.items():
        gone = ", freed" if file in view.freed.get("export", ()) else ""
        score, cost = view.engines.get(kind, {}).get(name), precision.get(kind, {})
        before = (tuned.get(name) or {}).get("value")
        rows.append(
            (
                kind + gone,
                _if(size, view.sizes.get(kind)),
                _if(number, cost.get("kl")),
                _if(share, cost.get("same_top")),
                ranged(name, score),
                changed(name, before, (score or {}).get("value"))[0],
                _if(number, speeds.get(kind, {}).get("tokens_per_s")),
            )
        )
    label = metric(name).label.lower()
    head = ("type", "size", "KL", "same top token", label, "against the tuned", "tokens/s")
    return Table(head, rows)


def _read(view: RunView, study: Kind) -> tuple[dict[str, Any], str, Gap | None]:
    """A study's results, the command that makes them again, and why they are not to be relied on.

    The results are empty where there are none, or where they cannot be read.
    """
    try:
        found = study_results(view.run, study) or {}
    except ChangedInput as error:
        command = view.command(error.hint.removeprefix("Run: pipe "))
        return {}, command, Gap(error.message, command)
    command = view.command(study_command(study, found).removeprefix("pipe "))
    doubt = study_doubt(view.run, found) if found else ""
    return found, command, Gap(f"{study}/ is stale: {doubt}.", command) if doubt else None


def _scored(each: Json) -> tuple[str, ...]:
    ends = [(each[when] or {}).get("value") for when in ("before", "after")]
    points, relative = changed(str(each["metric"]), *ends)
    return (
        str(each["label"]),
        told.settings(each),
        told.trainable(each),
        told.loss(each["train_loss"]),
        told.loss(each["eval_loss"]),
        told.general(each),
        told.score(each, "before"),
        told.score(each, "after"),
        points if relative == NOTHING else f"{points}, {relative}",
    )


def _cost(each: Json) -> tuple[str, ...]:
    return (
        str(each["label"]),
        told.gigabytes(each),
        told.saved(each),
        told.took(each),
        told.speed_up(each),
        _if(number, each["tokens_per_second"]),
    )


def _precision(each: Json, layers: Json) -> tuple[str, ...]:
    kl, score = each.get("kl") or {}, each.get("score")
    errors = layers.get(str(each.get("method"))) or {}
    return (
        str(each.get("label") or each.get("method")),
        str(each.get("family") or NOTHING),
        _if(number, each.get("bits_per_weight")),
        _if(size, each.get("weights_bytes")),
        _if(size, each.get("memory_bytes")),
        _if(number, each.get("tokens_per_second")),
        _if(number, each.get("perplexity")),
        _if(number, kl.get("mean")),
        _if(share, kl.get("same_top")),
        ranged(score.get("metric", "exact_match"), score) if score else NOTHING,
        _worst(errors),
    )


def _in_words(found: Json) -> str:
    """Of what the study is, what it says is best and by which rule, and what its memory counts."""
    said = [f"Of the {found.get('model', 'tuned')} model, on the task {found.get('task', 'test')}."]
    said += [str(found[key]) for key in ("says", "rule") if found.get(key)]
    memory = found.get("memory") or {}
    return " ".join(said + [f"Memory in {engine}: {what}." for engine, what in memory.items()])


def _worst(errors: Json) -> str:
    """The tensor that lost most, by the relative RMS error of its weights."""
    known = {name: error for name, error in errors.items() if finite(error)}
    if not known:
        return NOTHING
    name = max(known, key=lambda each: known[each])
    return f"{name} {share(known[name])}"


def _not_done(each: Json) -> tuple[str, str]:
    """What it is, and that it was refused, failed or not run, with the reason."""
    status = str(each.get("status") or "not run").replace("_", " ")
    reason = each.get("reason")
    name = str(each.get("label") or each.get("method"))
    return name, f"{status}: {reason}" if reason else status


def _if(form: Any, value: Any) -> str:
    return str(form(value)) if finite(value) else NOTHING
