"""Two runs asked the same questions: is the difference more than chance?"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
        return {"change": self.change, "p_value": self.p_value}


def paired_tests(one: RunView, other: RunView, task: str) -> dict[str, Paired]:
    """Engine -> the test of its right answers, where both runs asked it the same questions.

    Held-out rows count where id and text are the same in both. Another task's questions are not
    in the run: they are the same where both recorded the same content of it, else none counts.
    """
    if task != "test" and not _same_task(one, other, task):
        return {}
    first, second = _shares(one, task), _shares(other, task)
    same = _same_rows(one, other) if task == "test" else None
    samples = max(int(view.tasks[task].get("samples", 1)) for view in (one, other))
    found = {}
    for engine in first:
        common = sorted(
            id
            for id in first[engine].keys() & second.get(engine, {}).keys()
            if same is None or id in same
        )
        if common:
            found[engine] = compare(
                [first[engine][id] for id in common],
                [second[engine][id] for id in common],
                samples,
            )
    return found


def compare(first: list[float], second: list[float], samples: int = 1) -> Paired:
    """Paired shares, 0 to 1 a question, in the same order; tested as `pipe eval` tests engines.

    `samples` were asked of each question; of one only, a share is right or wrong.
    """
    import numpy as np

    from pipeline.evaluate import intervals

    one, other = np.array(first), np.array(second)
    change = other - one
    mean = float(change.mean())
    low, high = intervals.change_interval(change, _SEED)
    if samples == 1:
        p_value, test = intervals.mcnemar(one == 1, other == 1), "McNemar, exact"
    else:
        p_value, test = intervals.sign_flip(change, _SEED), "sign-flip permutation"
    found = {"value": mean, "low": min(low, mean), "high": max(high, mean)}
    return Paired(len(change), found, p_value, test)


def _shares(view: RunView, task: str) -> dict[str, dict[str, float]]:
    """Engine -> id -> the share of its samples that were right."""
    graded: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers_of(view, task):
        right = answer.get("metrics", {}).get("exact_match")
        if finite(right):
            graded[answer["engine"]][answer["id"]].append(float(right))
    return {
        engine: {id: sum(each) / len(each) for id, each in found.items()}
        for engine, found in graded.items()
    }


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
