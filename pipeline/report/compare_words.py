"""A comparison in words: the figures of a row, the table to paste, the best in a line."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.engines.trained import FULL
from pipeline.recipe.metrics import EXACT_MATCH
from pipeline.report.words import Metric, duration, finite, metric, number, share

Row = Mapping[str, Any]
Results = Mapping[str, Any]

NOTHING = "–"
_COLUMNS = (
    "Variant",
    "Trainable parameters",
    "Memory (GB)",
    "Memory saved",
    "Training time",
    "Speed-up",
    "Train loss",
    "Eval loss",
    "General loss, before → after",
)


def done(results: Results) -> list[Row]:
    return [row for row in results["variants"] if row["status"] == "done"]


def left_out(results: Results) -> list[Row]:
    """The variants that were refused or failed."""
    return [row for row in results["variants"] if row["status"] != "done"]


def best(results: Results) -> Row | None:
    return next((row for row in results["variants"] if row["label"] == results["best"]), None)


def gigabytes(row: Row) -> str:
    found = row["memory_bytes"]
    return f"{found / 1e9:.2f}" if finite(found) else NOTHING


def saved(row: Row) -> str:
    """The share of the reference's memory that is not needed; more memory is a minus."""
    found = row["memory_saving"]
    return f"{100 * found + 0.0:.1f}%".replace("-", "−") if finite(found) else NOTHING


def took(row: Row) -> str:
    return duration(row["seconds"]) if finite(row["seconds"]) else NOTHING


def speed_up(row: Row) -> str:
    return f"{row['speed_up']:.2f}×" if finite(row["speed_up"]) else NOTHING


def loss(value: float | None) -> str:
    return number(value) if finite(value) else NOTHING


def general(row: Row) -> str:
    """The loss on rows that the base could do, before and after."""
    before, after = row["general_loss_before"], row["general_loss_after"]
    if not finite(before) or not finite(after):
        return NOTHING
    return f"{number(before)} → {number(after)}"


def trainable(row: Row) -> str:
    """Parameters that learned, and their share of all."""
    some, all_ = row["trainable_parameters"], row["total_parameters"]
    return f"{some:,} ({share(some / all_)})" if some and all_ else NOTHING


def deciding(results: Results) -> Metric:
    """The metric by which the best is named."""
    return metric(next((str(row["metric"]) for row in results["variants"]), EXACT_MATCH))


def score(row: Row, when: str) -> str:
    """The metric that decides, `before` or `after`, with its 95% interval."""
    kind, value = metric(str(row["metric"])), row[when]
    return f"{kind.shown(value)} ({kind.between(value)})" if value else NOTHING


def settings(row: Row) -> str:
    return ", ".join(f"{key}={_plain(value)}" for key, value in row["settings"].items())


def _plain(value: Any) -> str:
    return "none" if value is None else str(value)


def title(results: Results) -> str:
    """What is compared, in a few words."""
    methods = {row["method"] for row in done(results)}
    if FULL in methods and len(methods) > 1:
        return f"LoRA and full fine-tuning of {results['recipe']}"
    return f"Variants of {results['recipe']}: {', '.join(results['vary'])}"


def optimal(results: Results) -> str:
    """The best variant's settings and figures in one line; empty where none is named."""
    row = best(results)
    if row is None:
        return ""
    parts = [_answered(row) if row["after"] else ""]
    parts += [f"eval loss {loss(row['eval_loss'])}" if finite(row["eval_loss"]) else ""]
    parts += [f"{gigabytes(row)} GB", f"{took(row)} of training"]
    parts.append(f"{trainable(row)} trainable parameters")
    return f"Optimal configuration: {settings(row)}: {', '.join(filter(None, parts))}."


def _answered(row: Row) -> str:
    if row["metric"] == EXACT_MATCH:
        return f"{score(row, 'after')} right"
    return f"{metric(str(row['metric'])).label} {score(row, 'after')}"


def markdown(results: Results) -> str:
    """The whole table with its reading, to paste."""
    label = deciding(results).label
    heads = (*_COLUMNS, f"{label} before", f"{label} after")
    lines = [f"### {title(results)}", "", _line(heads)]
    lines.append(_line(["---", *["---:"] * (len(heads) - 1)]))
    lines += [_line(_cells(row)) for row in done(results)]
    if left := left_out(results):
        lines += ["", *(f"- {each['label']} {each['status']}: {reason(each)}" for each in left)]
    said = [optimal(results), results["rule"], measured(results)]
    return "\n".join([*lines, *(line for text in said if text for line in ("", text))]) + "\n"


def reason(row: Row) -> str:
    """Why there are no figures, in one line."""
    return " ".join(str(row["reason"]).split())


def measured(results: Results) -> str:
    """What the figures are of: memory, time and questions."""
    where = results["device"]
    if where is None:
        return ""
    memory = (
        "the peak of the training process, libraries and all" if where == "cpu" else "the GPU's"
    )
    asked = results["questions"]
    scores = (
        f" {deciding(results).label} on {asked:,} questions with 95% intervals." if asked else ""
    )
    return (
        f"Measured on {'a CPU' if where == 'cpu' else where}: memory is {memory}, time that of the "
        f"training steps; savings and speed-up are against {results['reference']}.{scores}"
    )


def _cells(row: Row) -> list[str]:
    return [
        str(row["label"]),
        trainable(row),
        gigabytes(row),
        saved(row),
        took(row),
        speed_up(row),
        loss(row["train_loss"]),
        loss(row["eval_loss"]),
        general(row),
        score(row, "before"),
        score(row, "after"),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
