"""Of rows that repeat one another the earliest is kept, and a held-out row is the earlier one."""

import tracemalloc
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.choose.duplicates import (
    EVAL,
    REASONS,
    TEST,
    TRAIN,
    Rows,
    decide,
    earlier_similar,
    first_equal,
)
from pipeline.data.work.fingerprints import question_key, row_key, signature
from pipeline.recipe import Dedupe

STORY = (
    "A farmer has 17 sheep, 5 cows and 12 hens. On Monday he sells 3 sheep at the market and buys "
    "2 more hens from his neighbour. How many animals does the farmer have on Monday evening?"
)
TOLD_AGAIN = STORY.replace("farmer have on", "farmer own on")
"""Jaccard similarity 0.76 over 5-grams."""
RETOLD = "Explain why the sky is blue in one sentence, and name the effect."


def first_of(keys, order):
    """Which rows repeat an earlier one's key."""
    return first_equal(keys, order) >= 0


def near_duplicates(signatures, order, similarity):
    """Which rows are similar to an earlier one."""
    return earlier_similar(signatures, order, similarity) >= 0


def u64(*values):
    return np.array(values, np.uint64)


def rows_of(*rows, protected=()):
    """Rows of (question, answer, split)."""
    return Rows(
        row_keys=u64(*(row_key(None, question, "hm", answer) for question, answer, _ in rows)),
        question_keys=u64(*(question_key(question) for question, _, _ in rows)),
        splits=np.array([split for _, _, split in rows], np.int8),
        protected=np.isin(np.arange(len(rows)), protected),
        signatures=np.stack([signature(question) for question, _, _ in rows]),
    )


def reasons(rows, **dedupe):
    return [REASONS[code] for code in decide(rows, Dedupe(**dedupe)).codes]


def test_a_row_with_an_earlier_key_repeats_it():
    keys = u64(5, 7, 5, 5, 2**64 - 1, 7, 0)
    assert first_of(keys, None).tolist() == [False, False, True, True, False, True, False]


def test_earlier_is_by_order_and_not_by_place():
    keys = u64(5, 7, 5, 5, 7)
    assert first_of(keys, np.array([9, 4, 3, 5, 0])).tolist() == [True, True, False, True, False]


@given(st.lists(st.integers(0, 9)), st.randoms())
def test_of_every_key_the_first_in_order_is_left(keys, random):
    order = list(range(len(keys)))
    random.shuffle(order)
    left = ~first_of(u64(*keys), np.array(order, np.int64))
    firsts = {
        key: min(order[i] for i, other in enumerate(keys) if other == key) for key in set(keys)
    }
    assert {keys[i]: order[i] for i in np.flatnonzero(left)} == firsts
    assert left.sum() == len(firsts)


def test_keep_drops_equal_rows_only():
    rows = rows_of(
        (STORY, "33", TRAIN),
        (STORY, "34", TRAIN),
        (STORY.upper(), " 33", TRAIN),
        (TOLD_AGAIN, "33", TRAIN),
    )
    assert reasons(rows, questions="keep") == ["", "", "duplicate_row", ""]


def test_exact_drops_equal_questions_and_near_similar_ones():
    rows = rows_of(
        (STORY, "33", TRAIN),
        (STORY.upper(), "34", TRAIN),
        (TOLD_AGAIN, "33", TRAIN),
        (RETOLD, "Rayleigh", TRAIN),
    )
    assert reasons(rows, questions="exact") == ["", "duplicate_question", "", ""]
    near = ["", "duplicate_question", "near_duplicate", ""]
    assert reasons(rows, questions="near", similarity=0.7) == near
    assert reasons(rows, questions="near", similarity=0.95) == ["", "duplicate_question", "", ""]


def test_a_dropped_row_names_the_row_that_it_repeats():
    rows = rows_of(
        (RETOLD, "a", TRAIN),
        (STORY, "33", TRAIN),
        (RETOLD, "a", TRAIN),
        (STORY, "b", TRAIN),
        (TOLD_AGAIN, "c", TRAIN),
    )
    assert decide(rows, Dedupe(similarity=0.7)).of.tolist() == [-1, -1, 0, 1, 1]


@pytest.mark.parametrize("questions", ["keep", "exact", "near"])
def test_a_held_out_row_counts_as_earlier_than_one_that_is_trained_on(questions):
    rows = rows_of(
        (STORY, "33", TRAIN),
        (RETOLD, "a", TRAIN),
        (STORY, "34", TEST),
        (STORY, "35", EVAL),
        (RETOLD, "b", EVAL),
    )
    found = reasons(rows, questions=questions)
    assert found == ["contaminated", "contaminated", "", "contaminated", ""]


def test_a_train_row_similar_to_a_test_row_is_contaminated():
    rows = rows_of((TOLD_AGAIN, "33", TRAIN), (RETOLD, "a", TRAIN), (STORY, "33", TEST))
    assert reasons(rows, similarity=0.7) == ["contaminated", "", ""]


def test_two_held_out_rows_of_one_split_are_duplicates_and_not_contaminated():
    rows = rows_of((STORY, "33", TEST), (STORY, "34", TEST), (TOLD_AGAIN, "35", TEST))
    assert reasons(rows, similarity=0.7) == ["", "duplicate_question", "near_duplicate"]


def test_rows_of_a_test_file_are_never_dropped():
    held = [(STORY, "33", TEST)] * 2 + [(TOLD_AGAIN, "33", TEST)]
    rows = rows_of((STORY, "33", TEST), *held, (STORY, "33", TRAIN), protected=(1, 2, 3))
    found = reasons(rows, similarity=0.7)
    assert found == ["duplicate_row", "", "", "", "contaminated"]


def test_near_duplicates_need_signatures():
    rows = Rows(u64(1), u64(1), np.zeros(1, np.int8), np.zeros(1, bool))
    assert decide(rows, Dedupe(questions="exact")).codes.tolist() == [0]
    with pytest.raises(ValueError, match="signatures"):
        decide(rows, Dedupe(questions="near"))


def test_nothing_has_no_duplicates():
    rows = Rows(u64(), u64(), np.empty(0, np.int8), np.empty(0, bool), sketches(0))
    assert decide(rows, Dedupe()).codes.tolist() == []


def sketches(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 2**32, (rows, 128), np.uint32)


def blended(one, other, matches, seed=0):
    """`one` in so many of its numbers, anywhere, and `other` in the rest."""
    places = np.random.default_rng(seed).permutation(128)
    return np.where(places < matches, one, other)


def test_of_a_chain_of_similar_rows_the_first_is_left():
    links = [sketches(1)[0]]
    for seed in range(1, 12):
        links.append(blended(links[-1], sketches(1, seed)[0], 124, seed))
    chain = np.stack(links)
    assert (chain[0] == chain[-1]).mean() < 0.75
    assert near_duplicates(chain, None, 0.95).tolist() == [False] + [True] * 11
    assert near_duplicates(chain, np.arange(12)[::-1], 0.95).tolist() == [True] * 11 + [False]


@pytest.mark.parametrize(("matches", "found"), [(109, True), (108, False)])
def test_the_estimated_similarity_must_reach_the_threshold(matches, found):
    one, other = sketches(2)
    pair = np.stack([one, blended(one, other, matches)])
    assert near_duplicates(pair, None, 0.85).tolist() == [False, found]


def test_a_phrase_that_all_rows_share_hides_no_duplicate():
    rows = sketches(3000)
    rows[:, :64] = rows[0, :64]
    rows[2000:] = np.where(np.arange(128) % 16 == 0, rows[2000:], rows[:1000])
    found = earlier_similar(rows, None, 0.85)
    assert found.tolist() == [-1] * 2000 + list(range(1000))


def test_a_memory_map_gives_the_same(tmp_path):
    rows = sketches(9000)
    rows[5000:] = rows[1000:5000]
    np.save(tmp_path / "signatures.npy", rows)
    mapped = np.load(tmp_path / "signatures.npy", mmap_mode="r")
    assert (earlier_similar(mapped, None, 0.85) == earlier_similar(rows, None, 0.85)).all()
    assert near_duplicates(mapped, None, 0.85).sum() == 4000


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(range(6)), max_size=30), st.randoms())
def test_equal_signatures_leave_the_first_in_order(kinds, random):
    order = list(range(len(kinds)))
    random.shuffle(order)
    rows = sketches(6)[np.array(kinds, np.int64)]
    expected = first_of(u64(*kinds), np.array(order, np.int64))
    assert (near_duplicates(rows, np.array(order, np.int64), 0.85) == expected).all()


def test_recall_and_precision_against_the_true_similarity():
    """Over 1,500 pairs: the share found, by true Jaccard similarity of 5-grams."""
    random = np.random.default_rng(5)
    vocabulary = [f"w{number}" for number in range(3000)]
    texts, similarities = [], []
    for _ in range(1500):
        words = [vocabulary[i] for i in random.integers(0, 3000, 100)]
        changed = list(words)
        for place in random.integers(0, 100, random.integers(0, 6)):
            changed[place] = "changed"
        texts += [" ".join(words), " ".join(changed)]
        similarities.append(jaccard(words, changed))
    found = earlier_similar(np.stack([signature(text) for text in texts]), None, 0.85)
    shares = defaultdict(list)
    for pair, true in enumerate(similarities):
        shares[round(true * 20) / 20].append(found[2 * pair + 1] == 2 * pair)
    share = {level: np.mean(hits) for level, hits in shares.items()}
    assert (found[::2] == -1).all()
    assert share[1.0] == 1.0
    assert share[0.9] > 0.9
    assert share[0.75] < 0.1
    assert share[0.65] == 0.0


def jaccard(one, other):
    left, right = ({tuple(each[i : i + 5]) for i in range(96)} for each in (one, other))
    return len(left & right) / len(left | right)


def test_memory_grows_by_little_with_the_rows(tmp_path):
    peaks = []
    for rows in (10_000, 60_000):
        signatures = np.memmap(tmp_path / str(rows), np.uint32, "w+", shape=(rows, 128))
        signatures[:] = sketches(rows)
        keys = np.arange(rows, dtype=np.uint64)
        held = Rows(keys, keys, np.zeros(rows, np.int8), np.zeros(rows, bool), signatures)
        tracemalloc.start()
        decide(held, Dedupe())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 50_000 < 150
