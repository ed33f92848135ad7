"""Two variants asked the same questions: is the difference of the metric that decides chance?"""

from collections import defaultdict

from pipeline.engines.trained import TUNED
from pipeline.evaluate.metrics import METRICS
from pipeline.report.gather import answers_of
from pipeline.report.paired import Paired, _same_rows, _same_task, compare
from pipeline.report.view import RunView
from pipeline.report.words import finite

_YES_NO = {metric.name for metric in METRICS if metric.is_share}
_SEVERAL = 2
"""Values that are no yes or no are tested as those of several replies are, by their signs."""


def paired_test(one: RunView, other: RunView, metric: str) -> Paired | None:
    """What changes in the tuned model's answers to the leading task, from one run to the other.

    By McNemar's exact test where an answer is right or wrong, else by sign flips. None where both
    have no common question; questions are the same as `paired_tests` has them.
    """
    task = one.lead
    if task != "test" and not _same_task(one, other, task):
        return None
    same = _same_rows(one, other) if task == "test" else None
    first, second = _values(one, task, metric), _values(other, task, metric)
    common = sorted(id for id in first.keys() & second.keys() if same is None or id in same)
    if not common:
        return None
    samples = max(int(view.tasks[task].get("samples", 1)) for view in (one, other))
    replies = samples if metric in _YES_NO else max(samples, _SEVERAL)
    return compare([first[id] for id in common], [second[id] for id in common], replies)


def _values(view: RunView, task: str, metric: str) -> dict[str, float]:
    """Question -> the mean of the metric over its replies."""
    found: dict[str, list[float]] = defaultdict(list)
    for answer in answers_of(view, task):
        value = answer.get("metrics", {}).get(metric)
        if answer["engine"] == TUNED and finite(value):
            found[answer["id"]].append(float(value))
    return {id: sum(each) / len(each) for id, each in found.items()}
