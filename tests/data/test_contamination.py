"""Held-out questions are found in other rows; phrases that rows share are not."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.choose.contamination import COMMON, BenchmarkGuard, HeldOutGuard
from pipeline.data.choose.duplicates import EVAL, TEST, TRAIN
from pipeline.data.work.fingerprints import question_key, word_grams

QUESTION = (
    "A farmer has 17 sheep, 5 cows and 12 hens. On Monday he sells 3 sheep at the market and buys "
    "2 more hens. How many animals does he have?"
)
OTHER = "Explain in one short sentence why the sky is blue at noon, and name the effect behind it."
PHRASE = (
    "Please reason step by step in full sentences, check every step of your reasoning twice, and "
    "put your final answer, without any unit, within \\boxed{}."
)
SAMPLES = Path(__file__).parents[2] / "data" / "samples"


def grams_of(*texts):
    grams = [word_grams(text) for text in texts]
    flat = np.concatenate([np.empty(0, np.uint64), *grams])
    return flat, np.cumsum([0, *map(len, grams)])


def keys_of(*texts):
    return np.array([question_key(text) for text in texts], np.uint64)


def splits_of(*splits):
    return np.array(splits, np.int8)


def benchmark_hits(questions, *texts):
    return BenchmarkGuard(questions).hits(keys_of(*texts), *grams_of(*texts)).tolist()


def own_hits(held, *texts, others=()):
    """Hits of training rows against test questions; `others` are training rows as well."""
    grams, offsets = grams_of(*held)
    guard = HeldOutGuard(grams, offsets, np.full(len(held), TEST))
    for each in (held, texts, others):
        guard.count(*grams_of(*each))
    return guard.hits(*grams_of(*texts), np.full(len(texts), TRAIN)).tolist()


def test_a_benchmark_hits_by_one_shared_gram():
    shared = " ".join(QUESTION.split()[10:18])
    short = " ".join(QUESTION.split()[10:17])
    texts = [QUESTION, f"It was late. {shared} late.", f"It was late. {short} late.", OTHER]
    assert benchmark_hits([OTHER[::-1], QUESTION], *texts) == [True, True, False, False]


def test_a_benchmark_question_shorter_than_a_gram_hits_by_equality_alone():
    texts = ["What is 3 + 4", "What is 3 - 4?", "So tell me at once: What is 3 + 4? I wait.", ""]
    assert benchmark_hits(["What is 3 + 4?"], *texts) == [True, False, False, False]


def test_an_empty_benchmark_hits_nothing():
    assert benchmark_hits([], QUESTION, "What is 3 + 4?") == [False, False]


@given(st.lists(st.text("ab ", max_size=40), max_size=8), st.lists(st.text("ab ", max_size=40)))
def test_a_benchmark_hits_what_its_definition_says(questions, texts):
    held = {int(gram) for text in questions for gram in word_grams(text)}
    keys = {question_key(text) for text in questions}
    expected = [
        question_key(text) in keys or not held.isdisjoint(word_grams(text).tolist())
        for text in texts
    ]
    assert benchmark_hits(questions, *texts) == expected


def test_a_row_that_holds_an_own_test_question_is_hit():
    texts = [QUESTION, f"{OTHER} {QUESTION} {OTHER}", QUESTION.upper(), OTHER]
    assert own_hits([QUESTION], *texts) == [True, True, True, False]


def test_seven_tenths_of_an_own_question_give_it_away():
    words = [f"w{number}" for number in range(17)]
    seven, six = (" ".join(words[: grams + 7]) for grams in (7, 6))
    assert own_hits([" ".join(words)], f"{seven} end", f"{six} end") == [True, False]


def test_a_template_with_other_numbers_is_not_hit():
    told = QUESTION.replace("17", "18").replace("12", "9").replace("3", "4").replace("2", "6")
    assert own_hits([QUESTION], told, OTHER) == [False, False]


def test_a_phrase_in_more_than_ten_rows_does_not_count():
    held = f"What is 7 + 12? {PHRASE}"
    row = f"What is 9 + 4? {PHRASE}"
    alike = [f"Name {number} fruits. {PHRASE}" for number in range(COMMON - 1)]
    assert own_hits([held], row, others=alike[:-1]) == [True]
    assert own_hits([held], row, others=alike) == [False]


def test_the_question_itself_counts_beside_a_common_phrase():
    held = f"What is 7 + 12 - 3 + 5? {PHRASE}"
    alike = [f"Name {number} fruits. {PHRASE}" for number in range(COMMON)]
    assert own_hits([held], f"{PHRASE} {held}", others=alike) == [True]


def test_common_phrases_are_counted_in_distinct_questions():
    guard = HeldOutGuard(*grams_of(QUESTION), splits_of(TEST))
    many = grams_of(*[QUESTION] * 50)
    guard.count(*many, np.arange(50) < 1)
    assert guard.common == 0
    assert guard.hits(*many, np.full(50, TRAIN)).all()
    guard.count(*many)
    assert guard.common == len(word_grams(QUESTION))
    assert not guard.hits(*many, np.full(50, TRAIN)).any()


@pytest.mark.parametrize(
    ("split", "hits"), [(TRAIN, [True, True]), (EVAL, [True, False]), (TEST, [False, False])]
)
def test_test_rows_guard_eval_and_train_rows_and_eval_rows_guard_train_rows(split, hits):
    guard = HeldOutGuard(*grams_of(QUESTION, OTHER), splits_of(TEST, EVAL))
    guard.count(*grams_of(QUESTION, OTHER))
    assert guard.hits(*grams_of(QUESTION, OTHER), splits_of(split, split)).tolist() == hits


@pytest.mark.parametrize("held", [(), ("Too short.",), ("", QUESTION)])
def test_questions_without_grams_hit_nothing(held):
    assert own_hits(held, "Too short.", "", OTHER) == [False, False, False]


def test_no_rows_have_no_hits():
    assert own_hits([QUESTION]) == []


@given(st.lists(st.text("ab ", max_size=40), max_size=6), st.lists(st.text("ab ", max_size=60)))
def test_own_questions_hit_what_the_definition_says(held, texts):
    rows = [set(word_grams(text).tolist()) for text in (*held, *texts)]
    common = {gram for row in rows for gram in row if sum(gram in each for each in rows) > COMMON}
    sought = [row - common for row in rows[: len(held)]]
    expected = [
        any(each and 10 * len(row & each) >= 7 * len(each) for each in sought)
        for row in rows[len(held) :]
    ]
    assert own_hits(held, *texts) == expected


def test_the_demos_samples_lose_nothing_to_their_own_test_rows():
    train, test = (
        [json.loads(line)["problem"] for line in (SAMPLES / f"{name}.jsonl").open("rb")]
        for name in ("train", "test")
    )
    assert sum(benchmark_hits(test, *train)) == 444
    assert sum(own_hits(test, *train)) == 0
    assert sum(own_hits(test, *(f"Hello! {question}" for question in test))) == 250
