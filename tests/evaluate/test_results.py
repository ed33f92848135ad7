"""What counts, what is left out, and what changed from what."""

import math

import pytest

from pipeline.evaluate.items import item_of, without_unreadable
from pipeline.evaluate.metrics import METRICS
from pipeline.evaluate.results import Scores, pairs_of
from tests.evaluate.support import measured, row

RIGHT = "<think>\nhm\n</think>\n\nIt is {}."
ITEMS = [item_of(row(number), f"row {number}") for number in range(8)]


def scores(samples: int = 1, **engines: list) -> Scores:
    return Scores(engines, METRICS, samples, seed=1)


def all_right(items: list = ITEMS) -> list:
    return [measured(item, RIGHT.format(n + 1)) for n, item in enumerate(items)]


def test_a_reply_that_was_cut_is_not_right_nor_wrong_but_cut() -> None:
    replies = all_right()
    replies[0] = measured(ITEMS[0], RIGHT.format(1), stopped=False)
    replies[1] = measured(ITEMS[1], RIGHT.format(99))
    found = scores(base=replies).engines()["base"]
    shares = [found[name]["value"] for name in ("exact_match", "truncated", "wrong")]
    assert shares == [6 / 8, 1 / 8, 1 / 8]
    assert found["well_formed"]["value"] == 7 / 8


def test_an_open_thinking_block_holds_no_answer() -> None:
    replies = [measured(item, f"<think>\nIt is {n + 1}.") for n, item in enumerate(ITEMS)]
    assert scores(base=replies).engines()["base"]["exact_match"]["value"] == 0.0


def test_a_reference_that_cannot_be_read_leaves_its_question_out() -> None:
    odd = item_of({**row(1), "reference": "9^{9^{9^{9}}}"}, "row 1")
    items, unreadable = without_unreadable([ITEMS[0], odd, ITEMS[2]])
    assert unreadable == 1 and items[1].reference is None
    replies = [measured(item, RIGHT.format(1)) for item in items]
    found = scores(base=replies).engines()["base"]
    assert found["exact_match"]["value"] == 1 / 2 and found["wrong"]["value"] == 1 / 2
    assert found["well_formed"]["value"] == 1.0


@pytest.mark.parametrize("reference", ["81", "1,234.5", "\\frac{1}{2}", "x^2 + 1", "$\\sqrt{2}$"])
def test_references_that_can_be_read_are_graded(reference: str) -> None:
    assert without_unreadable([item_of({**row(1), "reference": reference}, "row 1")])[1] == 0


def test_a_metric_of_which_an_engine_says_nothing_is_absent() -> None:
    bare = item_of({"id": "q", "question": "Why?"}, "row 1")
    found = scores(base=[measured(bare, RIGHT.format(1))]).engines()["base"]
    assert sorted(found) == [
        "repetition",
        "reply_tokens",
        "thinking_tokens",
        "truncated",
        "well_formed",
    ]


def test_cross_entropy_weighs_every_token_alike() -> None:
    replies = [
        measured(ITEMS[0], "x", likelihood=(-1.0, 1)),
        measured(ITEMS[1], "x", likelihood=(-27.0, 9)),
        measured(ITEMS[2], "x"),
    ]
    found = scores(base=replies).engines()["base"]
    assert found["cross_entropy"]["value"] == pytest.approx(2.8)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(2.8), abs=1e-5)
    assert found["cross_entropy"]["low"] == pytest.approx(1.0)
    assert found["perplexity"]["high"] == pytest.approx(math.exp(3.0), abs=1e-5)


def test_pass_at_1_is_the_mean_over_replies_then_over_questions() -> None:
    right = [[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    replies = [
        measured(ITEMS[n], RIGHT.format(n + 1 if hit else 50))
        for n, hits in enumerate(right)
        for hit in hits
    ]
    value = scores(samples=4, base=replies).engines()["base"]["exact_match"]
    assert value["value"] == pytest.approx(5 / 12, abs=1e-6)
    # three questions, however often each is asked: the interval reaches both ends
    assert value["low"] == 0.0 and value["high"] == 1.0


def test_the_change_is_paired_and_tested_by_mcnemar() -> None:
    before = all_right()
    for number in range(6):
        before[number] = measured(ITEMS[number], RIGHT.format(70))
    compared = scores(base=before, adapter=all_right()).comparisons([("base", "adapter")])
    match = compared[0]
    assert match["metric"] == "exact_match" and match["test"] == "McNemar, exact"
    assert match["change"]["value"] == 0.75 and match["percent"] == 300.0
    assert match["p_value"] == 2 / 2**6
    assert [each["metric"] for each in compared] == ["exact_match", "well_formed"]
    formed = compared[1]
    assert formed["change"]["value"] == 0 and formed["p_value"] == 1.0
    assert formed["change"]["low"] < -0.2 and formed["change"]["high"] > 0.2


def test_few_hits_and_few_changes_get_score_intervals() -> None:
    replies = all_right()
    replies[0] = measured(ITEMS[0], RIGHT.format(70))
    found = scores(base=replies, adapter=all_right())
    assert found.engines()["base"]["exact_match"]["low"] == pytest.approx(0.529, abs=1e-3)
    (match, _) = found.comparisons([("base", "adapter")])
    change = match["change"]
    assert change["value"] == 0.125 and change["low"] < 0 and change["high"] > 0.3


def test_the_metric_that_decides_is_compared_first() -> None:
    found = scores(base=all_right(), adapter=all_right())
    pair = [("base", "adapter")]
    named = [each["metric"] for each in found.comparisons(pair, "reply_tokens")]
    assert named == ["reply_tokens", "exact_match", "well_formed"]


def test_a_rise_from_nothing_has_no_percentage() -> None:
    none = [measured(item, RIGHT.format(70)) for item in ITEMS]
    (match, _) = scores(base=none, adapter=all_right()).comparisons([("base", "adapter")])
    assert match["percent"] is None and match["change"]["value"] == 1.0


def test_losses_are_compared_by_sign_flips() -> None:
    one = [measured(item, "x", likelihood=(-4.0 - n, 4)) for n, item in enumerate(ITEMS)]
    other = [measured(item, "x", likelihood=(-4.4 - n, 4)) for n, item in enumerate(ITEMS)]
    found = scores(base=one, adapter=other).comparisons([("base", "adapter")])
    loss = next(each for each in found if each["metric"] == "cross_entropy")
    assert loss["change"] == {"value": 0.1, "low": 0.1, "high": 0.1}
    assert (
        loss["p_value"] == pytest.approx(2 / 2**8, abs=1e-5)
        and loss["test"] == "sign-flip permutation"
    )


def test_pairs_go_from_the_base_to_the_tuned_model_and_on_to_what_is_served() -> None:
    engines = ["base", "adapter", "merged", "Q8_0", "Q4_K_M", "ollama", "endpoint"]
    assert pairs_of(engines, ["Q8_0", "Q4_K_M"]) == [
        ("base", "adapter"),
        ("adapter", "merged"),
        ("adapter", "Q8_0"),
        ("adapter", "Q4_K_M"),
        ("Q8_0", "ollama"),
        ("Q8_0", "endpoint"),
    ]
    assert pairs_of(["base", "Q4_K_M"], ["Q8_0", "Q4_K_M"]) == [("base", "Q4_K_M")]
    assert pairs_of(["base", "ollama"], ["Q8_0"]) == [("base", "ollama")]
    assert pairs_of(["base"], ["Q8_0"]) == []
