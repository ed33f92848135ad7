"""Two runs asked the same questions: is the difference more than chance?"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.gather import RunView, answers_of, rows_of

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

    A question counts where its id and, for held-out rows, its text are the same in both.
    """
    first, second = _shares(one, task), _shares(other, task)
    same = _same_rows(one, other) if task == "test" else None
    found = {}
    for engine in first:
        common = sorted(
            id
            for id in first[engine].keys() & second.get(engine, {}).keys()
            if same is None or id in same
        )
        if common:
            found[engine] = compare(
                [first[engine][id] for id in common], [second[engine][id] for id in common]
            )
    return found


def compare(first: list[float], second: list[float]) -> Paired:
    """Paired shares, 0 to 1 a question, in the same order; tested as `pipe eval` tests engines."""
    import numpy as np

    from pipeline.evaluate import intervals

    one, other = np.array(first), np.array(second)
    change = other - one
    mean, questions = float(change.mean()), len(change)
    if np.ptp(change) == 0 and mean in (-1.0, 0.0, 1.0):
        low, high = intervals.agreeing_change(int(mean), questions)
    else:
        sums = intervals.resampled_sums(change[:, None], _SEED)
        low, high = intervals.percentile_range(sums[:, 0] / questions)
    if np.isin(one, (0.0, 1.0)).all() and np.isin(other, (0.0, 1.0)).all():
        p_value, test = intervals.mcnemar(one == 1, other == 1), "McNemar, exact"
    else:
        p_value, test = intervals.sign_flip(change, _SEED), "sign-flip permutation"
    return Paired(questions, {"value": mean, "low": low, "high": high}, p_value, test)


def _shares(view: RunView, task: str) -> dict[str, dict[str, float]]:
    """Engine -> id -> the share of its samples that were right."""
    graded: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers_of(view, task):
        right = answer.get("metrics", {}).get("exact_match")
        if right is not None:
            graded[answer["engine"]][answer["id"]].append(float(right))
    return {
        engine: {id: sum(each) / len(each) for id, each in found.items()}
        for engine, found in graded.items()
    }


def _same_rows(one: RunView, other: RunView) -> set[str]:
    """Ids of held-out rows that ask the same in both runs."""
    asked: list[dict[str, Any]] = [
        {row["id"]: (row["question"], row.get("reference")) for row in rows_of(view)}
        for view in (one, other)
    ]
    return {id for id, question in asked[0].items() if asked[1].get(id) == question}
