"""results.json and quant.csv: the rows, and which of them is the best by a stated rule."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pipeline.report.words import metric
from pipeline.run import Run
from pipeline.run.studies import study_results
from pipeline.study.sheet import csv_of

KEPT = 0.95
"""19 in 20, of the score and of the likeliest tokens."""
RULE = (
    f"The fewest bytes of weights among the rows that keep at least {KEPT:.0%} of the score of "
    f"none, and find the same token likeliest at least {KEPT:.0%} of the time."
)
MEMORY = {
    "transformers": "what torch has allocated on a GPU; on a CPU the weights and scales as they "
    "are held there, those that are not quantized in fp32",
    "llama.cpp": "resident memory of llama.cpp's process, the mapped file and the contexts of all "
    "conversations included; not what a GPU holds",
}
"""Engine -> how its memory is measured: comparable between its own rows alone."""

Found = dict[str, Any]
Better = Literal["higher", "lower", "neither"]


def best(rows: Sequence[Mapping[str, Any]], better: Better) -> str | None:
    """The method that RULE names; None where `none` was not measured. Of equal sizes the first."""
    measured = [row for row in rows if row["status"] == "measured"]
    reference = next((row for row in measured if row["method"] == "none"), None)
    if reference is None:
        return None
    good = [row for row in measured if _keeps(row, reference, better)]
    return str(min(good, key=lambda row: row["weights_bytes"])["method"])


def _keeps(row: Mapping[str, Any], reference: Mapping[str, Any], better: Better) -> bool:
    if row is reference:
        return True
    if row["kl"] is None or row["kl"]["same_top"] < KEPT:
        return False
    score, wanted = row["score"], reference["score"]
    if score is None or wanted is None:
        return wanted is None
    if better == "lower":
        return bool(score["value"] * KEPT <= wanted["value"])
    return bool(score["value"] >= wanted["value"] * KEPT)


def in_words(results: Mapping[str, Any]) -> str:
    """The best row in a sentence, for a person."""
    rows = {row["method"]: row for row in results["rows"]}
    if results["best"] is None:
        return "none was not measured, so nothing can be held against it."
    row, whole = rows[results["best"]], rows["none"]
    if row is whole:
        return "No narrower row keeps what none has: stay at 16 bits."
    share = row["weights_bytes"] / whole["weights_bytes"]
    said = f"{row['label']} is the best choice: {share:.0%} of the bytes of 16 bits"
    said += f", the same likeliest token {row['kl']['same_top']:.1%} of the time"
    if row["score"] and whole["score"]:
        name = row["score"]["metric"]
        values = [metric(name).shown(score) for score in (row["score"], whole["score"])]
        said += f", {name.replace('_', ' ')} {' against '.join(values)}"
    return said + "."


def as_csv(results: Mapping[str, Any]) -> str:
    """A line a row; KL in nats, the score with its 95% interval."""
    return csv_of([_flat(row) for row in results["rows"]])


def _flat(row: Mapping[str, Any]) -> Found:
    kl, score = row["kl"] or {}, row["score"] or {}
    plain = {key: value for key, value in row.items() if key not in ("kl", "score", "reason")}
    plain |= {f"kl_{key}": kl.get(key) for key in ("mean", "p99", "same_top")}
    plain |= {"metric": score.get("metric")}
    plain |= {f"score_{key}": score.get(key) for key in ("value", "low", "high")}
    return plain | {"reason": row["reason"]}


def last(run: Run) -> Found | None:
    """What the last study of a run found; None where there is none.

    Raises ChangedInput where its file is no such result.
    """
    return study_results(run, "quant")
