"""The same questions asked twice: is the difference of a metric more than chance?"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.recipe.metrics import EXACT_MATCH, KNOWN
from pipeline.report.gather import answers_of, rows_of
from pipeline.report.view import RunView
from pipeline.report.words import finite

_SEED = 0


@dataclass(frozen=True)
class Paired:
    questions: int
    """How many both answered."""
    change: Mapping[str, float]
    """value, low, high: the mean difference, second less first, and its 95% interval."""
    p_value: float
    test: str

    def as_comparison(self) -> dict[str, Any]:
        """As `pipe eval` writes one."""
        return {"change": self.change, "p_value": self.p_value, "test": self.test}


def paired_tests(
    one: RunView, other: RunView, task: str, metric: str = EXACT_MATCH
) -> dict[str, Paired]:
    """Engine -> the test of a metric of its answers, where both runs asked it the same questions.

    Held-out rows count where id and text are the same in both. Another task's questions are not
    in the run: they are the same where both recorded the same content of it, else none counts.
    """
    if task != "test" and not _same_task(one, other, task):
        return {}
    first, second = _values_of(one, task, metric), _values_of(other, task, metric)
    if task == "test":
        same = _same_rows(one, other)
        first = {e: {id: v for id, v in each.items() if id in same} for e, each in first.items()}
    samples = max(int(view.tasks[task].get("samples", 1)) for view in (one, other))
    tests = {
        engine: _compare_values(first[engine], second.get(engine, {}), metric, samples)
        for engine in first
    }
    return {engine: test for engine, test in tests.items() if test}


def _compare_values(
    first: Mapping[str, float], second: Mapping[str, float], metric: str, samples: int
) -> Paired | None:
    """Question -> the mean over its replies, twice; None where both have no common question."""
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    is_share = metric in KNOWN and KNOWN[metric].is_share
    one, other = ([each[id] for id in common] for each in (first, second))
    return compare(one, other, samples, is_share=is_share)


def _values_of(view: RunView, task: str, metric: str) -> dict[str, dict[str, float]]:
    """Engine -> question -> the mean of the metric over its replies."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers_of(view, task):
        value = answer.get("metrics", {}).get(metric)
        if finite(value):
            found[answer["engine"]][answer["id"]].append(float(value))
    return {
        engine: {id: sum(each) / len(each) for id, each in values.items()}
        for engine, values in found.items()
    }


def compare(
    first: list[float], second: list[float], samples: int = 1, *, is_share: bool = True
) -> Paired:
    """Paired values of each question, in the same order; tested as `pipe eval` tests engines.

    Of a share, such as right answers, values are 0 to 1; with one of `samples` a question, 0 or 1.
    """
    import numpy as np

    from pipeline.evaluate import intervals

    one, other = np.array(first), np.array(second)
    change = other - one
    mean = float(change.mean())
    if is_share:
        low, high = intervals.change_interval(change, _SEED)
    else:
        sums = intervals.resampled_sums(change[:, None], _SEED)[:, 0]
        low, high = intervals.percentile_range(sums / len(change))
    if is_share and samples == 1:
        p_value, test = intervals.mcnemar(one == 1, other == 1), "McNemar, exact"
    else:
        p_value, test = intervals.sign_flip(change, _SEED), "sign-flip permutation"
    found = {"value": mean, "low": min(low, mean), "high": max(high, mean)}
    return Paired(len(change), found, p_value, test)


def _same_task(one: RunView, other: RunView, task: str) -> bool:
    """Whether both recorded the same rows, by commit or sha256, and the same task file."""
    first, second = (_content(view, task) for view in (one, other))
    return first is not None and first == second


def _content(view: RunView, task: str) -> tuple[Any, ...] | None:
    """None where nothing says what the rows were."""
    fact = view.facts("eval").get("tasks", {}).get(task, {})
    which = fact.get("revision") or fact.get("sha256")
    inputs = view.manifests["eval"].inputs.items() if "eval" in view.manifests else ()
    prefix = f"task/{task}"
    read = [each.sha256 for name, each in inputs if name == prefix or name.startswith(f"{prefix}/")]
    return (fact.get("dataset"), which, *sorted(read)) if which else None


def _same_rows(one: RunView, other: RunView) -> set[str]:
    """Ids of held-out rows that ask the same in both runs."""
    asked: list[dict[str, Any]] = [
        {row["id"]: (row["question"], row.get("reference")) for row in rows_of(view)}
        for view in (one, other)
    ]
    return {id for id, question in asked[0].items() if asked[1].get(id) == question}
