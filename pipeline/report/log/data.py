"""What the log says of the data: kinds of rows, lengths, and a quality score with its formula."""

from collections import Counter
from typing import Any

from pipeline.report.log.sections import NOTHING, Table
from pipeline.report.view import RunView
from pipeline.report.words import share
from pipeline.run.rows import read_jsonl

_TOO_LONG = "too_long"
_KINDS = {
    "the answer is wrong, by its own reference or flags": ("refuted", "incorrect", "incomplete"),
    "repeats": ("duplicate_row", "duplicate_question", "near_duplicate"),
    "asks what a test or benchmark asks": ("contaminated",),
}
"""Reasons of stats.json by what they say of a dataset; those not named are told as one."""
_SPREAD = {"p5": "p5", "p50": "median", "p95": "p95", "max": "longest", "sum": "all tokens"}


def data(view: RunView) -> dict[str, Any]:
    """Rows, quality, lengths and sources as tables; empty where the statistics are missing."""
    if not view.stats:
        return {}
    counted = _counted(view)
    return {
        "rows": _rows(view, counted),
        "quality": _quality(view, counted),
        "lengths": _lengths(view),
        "sources": _sources(view),
    }


def _counted(view: RunView) -> Counter[str]:
    """Training rows in all, those learned with their reasoning, those with a known answer."""
    path = view.run.folder("data") / "train.jsonl"
    found: Counter[str] = Counter()
    for row in read_jsonl(path) if path.exists() else ():
        found["rows"] += 1
        found["thinking"] += bool(row.get("thinking", row.get("reasoning")))
        found["known"] += row.get("reference") is not None
    return found


def _rows(view: RunView, counted: Counter[str]) -> Table:
    rows = view.stats.get("rows", {})
    kinds = {"to train on": "train", "to steer by": "eval", "to measure with": "test"}
    found = [(kind, f"{rows[split]:,}", "") for kind, split in kinds.items() if split in rows]
    if total := counted["rows"]:
        thinking = counted["thinking"]
        found[1:1] = [
            ("... with reasoning", f"{thinking:,}", share(thinking / total)),
            ("... answered directly", f"{total - thinking:,}", share(1 - thinking / total)),
        ]
    return Table(("rows", "how many", "share"), found)


def _quality(view: RunView, counted: Counter[str]) -> Table:
    """What the filters found in the sources that are trained on.

    The score is (records - too long - dropped for any other reason) / (records - too long): how
    much of a dataset is worth learning from. What does not fit a context length is no fault of it.
    """
    sources = _trained(view)
    records = sum(source["records"] for source in sources)
    rejects: Counter[str] = sum((Counter(each["rejects"]) for each in sources), Counter())
    long = rejects.pop(_TOO_LONG, 0)
    score = _of("quality score", records - long - rejects.total(), records - long)
    rows = [("records read", f"{records:,}", ""), _of("too long for the context", long, records)]
    for kind, reasons in _KINDS.items():
        rows.append(_of(kind, sum(rejects.pop(reason, 0) for reason in reasons), records))
    rows += [_of("dropped for another reason", rejects.total(), records), score]
    if counted["rows"] and _verified(view):
        known = "training rows with a known answer, which theirs does not contradict"
        rows.append(_of(known, counted["known"], counted["rows"]))
    return Table(("what", "rows", "share"), rows)


def _of(what: str, count: int, total: int) -> tuple[str, str, str]:
    return what, f"{count:,}", share(count / total) if total else NOTHING


def _verified(view: RunView) -> bool:
    """Whether every row with a known answer was held against it."""
    asked = view.recipe.get("data", {})
    own = [source.get("filters") or asked.get("filters", {}) for source in asked.get("sources", ())]
    return all(filters.get("verify") for filters in own)


def _trained(view: RunView) -> list[dict[str, Any]]:
    """Figures of the sources that the recipe trains on: they stand first."""
    asked = view.recipe.get("data", {}).get("sources", ())
    return list(view.stats.get("sources", ()))[: len(asked)]


def _lengths(view: RunView) -> Table:
    tokens = {split: found for split, found in view.stats.get("tokens", {}).items() if found}
    rows = [
        (split, *(f"{tokens[split][each]:,}" for each in _SPREAD))
        for split in ("train", "eval", "test")
        if split in tokens
    ]
    return Table(("tokens of a row", *_SPREAD.values()), rows)


def _sources(view: RunView) -> Table:
    rows = []
    for source in view.stats.get("sources", ()):
        rejects = sorted(source["rejects"].items(), key=lambda each: (-each[1], each[0]))
        why = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in rejects)
        name = " ".join(filter(None, (source["dataset"], source.get("config"))))
        spare = f"{source.get('left_out', 0):,}"
        figures = (f"{source['records']:,}", f"{source['rows']:,}", spare)
        rows.append((name, *figures, why or "none"))
    return Table(("source", "records", "kept", "beyond its weight", "dropped"), rows)
