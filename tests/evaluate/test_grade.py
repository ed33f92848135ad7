"""Grading and intervals."""

import pytest

from pipeline.evaluate.grade import exact_match, wilson


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Leo has 68 pens.", "68", True),
        ("Leo has 68 pens, not 67.", "68", False),
        ("The sum is 1,068.50", "1068.5", True),
        ("It is -3", "3", False),
        ("It is 007", "7", True),
        ("So \\boxed{\\frac{1}{2}} it is, by step 3.", "\\boxed{\\frac{1}{2}}", True),
        ("So \\boxed{1} or \\boxed{2}", "2", True),
        ("Blue  whale", "blue whale", True),
        ("", "", False),
        ("", "3", False),
        ("\\boxed{unclosed 3", "3", True),
        ("$\\frac{1}{2}$", "\\boxed{\\frac{1}{2}}", True),
        ("half: 1/2", "\\frac{3}{2}", False),
        ("\\boxed{3/4}", "3/4", True),
        ("\\boxed{42\\text{ cm}}", "42", True),
        ("\\boxed{x=5}", "5", True),
        ("\\boxed{x^2}", "y^2", False),
        ("\\boxed{(1,2)}", "(1,2)", True),
        ("\\boxed{A}", "A", True),
    ],
)
def test_exact_match(answer: str, reference: str, right: bool) -> None:
    assert exact_match(answer, reference) is right


@pytest.mark.parametrize(
    ("hits", "items", "low", "high"),
    # reference values: statsmodels.stats.proportion.proportion_confint(method="wilson")
    [(8, 10, 0.49016, 0.94332), (0, 250, 0.0, 0.01513), (250, 250, 0.98487, 1.0)],
)
def test_wilson(hits: int, items: int, low: float, high: float) -> None:
    share = wilson(hits, items)
    assert share.value == hits / items
    assert share.low == pytest.approx(low, abs=1e-4)
    assert share.high == pytest.approx(high, abs=1e-4)
