"""Which variant is named best, by a rule that can be said in a sentence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.engines.trained import TUNED
from pipeline.report.gather import RunView
from pipeline.report.paired import paired_tests
from pipeline.report.words import LIKELY, finite, plural

Row = Mapping[str, Any]

NEAR = 0.05
"""Memory and times that differ by less are not told apart: a machine's other work moves them."""
_ROWS = ("seed", "model", "data", "chat")
"""Sections of the recipe that decide which rows there are."""
_NO_SCORES = "No variant is named best: right answers were not measured for each."


@dataclass(frozen=True)
class Choice:
    """The variant named best, and why."""

    best: str | None
    rule: str
    tests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Label -> the paired test of the most accurate variant against this one, of the others."""


def choose(rows: Sequence[Row], views: Mapping[str, RunView], vary: Mapping[str, Any]) -> Choice:
    """Of the variants that are done. `views` is label -> its run.

    Where questions were asked, by right answers, memory and time; where none were, by the loss on
    the eval rows, as long as all variants have the same.
    """
    if rows and all(row["after"] is not None for row in rows):
        return _by_answers(rows, views)
    same_rows = not any(key.partition(".")[0] in _ROWS for key in vary)
    if same_rows and rows and all(finite(row["eval_loss"]) for row in rows):
        lowest = min(rows, key=lambda row: float(row["eval_loss"]))
        rule = "The lowest loss on the eval rows; no test question was asked."
        return Choice(str(lowest["label"]), rule)
    return Choice(None, _NO_SCORES)


def _by_answers(rows: Sequence[Row], views: Mapping[str, RunView]) -> Choice:
    """McNemar's exact test on the questions that both answered, each p-value its own."""
    top = max(rows, key=lambda row: float(row["after"]["value"]))
    tests = {
        row["label"]: found for row in rows if row is not top if (found := _tested(row, top, views))
    }
    # a variant without a common question is not held to be as good
    equal = [row for row in rows if row is top or _not_worse(tests.get(row["label"]))]
    lean = _near_least(equal, lambda row: row["memory_bytes"])
    fast = _near_least(lean, lambda row: row["seconds"])
    best = max(fast, key=lambda row: float(row["after"]["value"]))
    asked = max((test["questions"] for test in tests.values()), default=0)
    rule = (
        f"Left out are variants that a paired test on the same {plural(asked, 'question')} finds "
        f"less accurate (p < {LIKELY:g}) than {top['label']}, which has the most right answers. Of "
        f"the rest: those within {NEAR:.0%} of the least memory; of these, those within "
        f"{NEAR:.0%} of the shortest training; of these, the most accurate."
    )
    return Choice(str(best["label"]), rule, tests)


def _tested(row: Row, top: Row, views: Mapping[str, RunView]) -> Mapping[str, Any] | None:
    """What changes from the most accurate variant to this one; None without a common question."""
    one, other = views[top["label"]], views[row["label"]]
    found = paired_tests(one, other, one.lead).get(TUNED)
    if found is None:
        return None
    change = {key: round(value, 6) for key, value in found.change.items() if value is not None}
    test = {"p_value": float(f"{found.p_value:.4g}"), "test": found.test}
    return {"from": top["label"], "questions": found.questions, "change": change, **test}


def _not_worse(test: Mapping[str, Any] | None) -> bool:
    return test is not None and not (test["p_value"] < LIKELY and test["change"]["value"] < 0)


def _near_least(rows: Sequence[Row], of: Callable[[Row], float | None]) -> list[Row]:
    """Those within NEAR of the smallest; all where one is not known."""
    known = [value for value in map(of, rows) if finite(value)]
    if len(known) < len(rows):
        return list(rows)
    limit = min(known) * (1 + NEAR)
    return [row for row, value in zip(rows, known, strict=True) if value <= limit]
