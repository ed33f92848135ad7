"""Which variant is named best, by a rule that can be said in a sentence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.engines.trained import TUNED
from pipeline.recipe.metrics import EXACT_MATCH
from pipeline.report.paired import paired_tests
from pipeline.report.view import RunView
from pipeline.report.words import LIKELY, finite, metric, plural

Row = Mapping[str, Any]

NEAR = 0.05
"""Memory and times that differ by less are not told apart: a machine's other work moves them."""
_ROWS = ("seed", "model", "data", "chat")
"""Sections of the recipe that decide which rows there are."""


@dataclass(frozen=True)
class Choice:
    """The variant named best, and why."""

    best: str | None
    rule: str
    tests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Label -> the paired test of the most accurate variant against this one, of the others."""


@dataclass(frozen=True)
class _Asked:
    """The variants that answered, and the metric that decides."""

    rows: Sequence[Row]
    views: Mapping[str, RunView]
    metric: str

    @property
    def lower(self) -> bool:
        """Whether less is better, as of an error."""
        return metric(self.metric).better == "lower"

    def gain(self, row: Row) -> float:
        """How good the answers are: more is better whatever the metric."""
        value = float(row["after"]["value"])
        return -value if self.lower else value


def choose(
    rows: Sequence[Row],
    views: Mapping[str, RunView],
    vary: Mapping[str, Any],
    deciding: str,
    *,
    asked: bool,
) -> Choice:
    """Of the variants that are done. `views` is label -> its run, `deciding` the metric.

    `asked` says whether questions were. Where the metric was measured for each, by that, memory and
    time; else by the loss on the eval rows, as long as all variants have the same.
    """
    if rows and all(row["after"] is not None for row in rows):
        return _by_answers(_Asked(rows, views, deciding))
    why = _not_known(deciding) if asked else "no test question was asked"
    same_rows = not any(key.partition(".")[0] in _ROWS for key in vary)
    if same_rows and rows and all(finite(row["eval_loss"]) for row in rows):
        lowest = min(rows, key=lambda row: float(row["eval_loss"]))
        return Choice(str(lowest["label"]), f"The lowest loss on the eval rows; {why}.")
    return Choice(None, f"No variant is named best: {why}.")


def _by_answers(asked: _Asked) -> Choice:
    """A paired test on the questions that both answered, each p-value its own."""
    rows = asked.rows
    top = max(rows, key=asked.gain)
    tests = {
        row["label"]: found for row in rows if row is not top if (found := _tested(asked, row, top))
    }
    # a variant without a common question is not held to be as good
    equal = [row for row in rows if row is top or _not_worse(asked, tests.get(row["label"]))]
    lean = _near_least(equal, lambda row: row["memory_bytes"])
    fast = _near_least(lean, lambda row: row["seconds"])
    best = max(fast, key=asked.gain)
    return Choice(str(best["label"]), _rule(asked, top, tests), tests)


def _rule(asked: _Asked, top: Row, tests: Mapping[str, Mapping[str, Any]]) -> str:
    questions = max((test["questions"] for test in tests.values()), default=0)
    if asked.metric == EXACT_MATCH:
        worse, most, last = "less accurate", "the most right answers", "the most accurate"
    else:
        far, name = "lowest" if asked.lower else "highest", metric(asked.metric).label
        worse, most, last = "worse", f"the {far} {name}", f"that of the {far} {name}"
    return (
        f"Left out are variants that a paired test on the same {plural(questions, 'question')} "
        f"finds {worse} (p < {LIKELY:g}) than {top['label']}, which has {most}. Of the rest: those "
        f"within {NEAR:.0%} of the least memory; of these, those within {NEAR:.0%} of the shortest "
        f"training; of these, {last}."
    )


def _not_known(name: str) -> str:
    what = "right answers were" if name == EXACT_MATCH else f"{metric(name).label} was"
    return f"{what} not measured for each"


def _tested(asked: _Asked, row: Row, top: Row) -> Mapping[str, Any] | None:
    """What changes from the most accurate variant to this one; None without a common question."""
    first, second = (asked.views[each["label"]] for each in (top, row))
    found = paired_tests(first, second, first.lead, asked.metric).get(TUNED)
    if found is None:
        return None
    change = {key: round(value, 6) for key, value in found.change.items() if value is not None}
    test = {"p_value": float(f"{found.p_value:.4g}"), "test": found.test}
    return {"from": top["label"], "questions": found.questions, "change": change, **test}


def _not_worse(asked: _Asked, test: Mapping[str, Any] | None) -> bool:
    if test is None:
        return False
    change = test["change"]["value"]
    worse = change > 0 if asked.lower else change < 0
    return not (test["p_value"] < LIKELY and worse)


def _near_least(rows: Sequence[Row], of: Callable[[Row], float | None]) -> list[Row]:
    """Those within NEAR of the smallest; all where one is not known."""
    known = [value for value in map(of, rows) if finite(value)]
    if len(known) < len(rows):
        return list(rows)
    limit = min(known) * (1 + NEAR)
    return [row for row, value in zip(rows, known, strict=True) if value <= limit]
