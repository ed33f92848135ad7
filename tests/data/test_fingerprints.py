"""Fingerprints are equal for what is the same, different for what is not, and the same anywhere."""

import unicodedata
from itertools import combinations

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.work.fingerprints import (
    PERMUTATIONS,
    _normalised,
    _tokens,
    fingerprint,
    mixed,
    multipliers,
    question_key,
    row_key,
    signature,
    word_grams,
)

STORY = "Tim has 59 cards. Tim buys 7 more. Tim loses 9. How many cards does Tim have in the end?"

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.text("0123456789+-*/=^_()x ", min_size=1)


@pytest.mark.parametrize(
    "other",
    [
        "what is  3 +\n4",
        " What is 3 + 4 ?",
        "WHAT IS 3 + 4.",
        "Ｗｈａｔ is ３ + ４？",
        "What\u00a0is 3 + 4…",
    ],
)
def test_case_spacing_form_and_final_punctuation_do_not_make_another_question(other):
    assert question_key(other) == question_key("What is 3 + 4?")


@pytest.mark.parametrize(
    "other",
    [
        "What is 3 - 4?",
        "What is 3 + 5?",
        "What is 34?",
        "What is 3 + 4!?",
        "What is -3 + 4?",
        "What is 3 + 4 = ?",
        "What is 3. + 4?",
    ],
)
def test_operators_digits_and_factorials_make_another_question(other):
    assert question_key(other) != question_key("What is 3 + 4?")


def test_an_exponent_is_neither_a_digit_nor_an_index():
    asked = ["What is 3²?", "What is 32?", "What is 3₂?", "What is 3 2?", "What is 3½?"]
    assert len({question_key(text) for text in asked}) == len(asked)
    assert question_key("What is 3²?") == question_key("What is 3^2?")


def test_composed_and_decomposed_accents_are_the_same_question():
    text = "Où est l’élève, 각 Ǆ ΐ?"
    assert question_key(unicodedata.normalize("NFD", text)) == question_key(text)


@given(st.text(st.characters(max_codepoint=0x52F, exclude_characters="\u0345")))
def test_case_never_makes_another_question(text):
    assert question_key(text.casefold()) == question_key(text)


@given(NUMBERS, NUMBERS)
def test_formulas_have_one_key_only_where_they_differ_in_spacing(one, other):
    same = one.split() == other.split()
    assert (question_key(one) == question_key(other)) == same


@given(TEXTS)
def test_a_fingerprint_is_its_three_parts(text):
    key, grams, signed = fingerprint(text)
    assert key == question_key(text)
    assert grams.tolist() == word_grams(text).tolist()
    assert signed.tolist() == signature(text).tolist()


@pytest.mark.parametrize("text", ["\ud800", "a \udfff b c d e f g h i j", "\0", "", " \n"])
def test_text_that_is_no_text_has_fingerprints_too(text):
    key, _, signed = fingerprint(text)
    assert 0 <= key < 2**64
    assert signed.shape == (PERMUTATIONS,)
    assert 0 <= row_key(None, text, None, text) < 2**64


def test_every_part_of_a_row_counts_in_its_key():
    row = ("Be brief.", "What is 3 + 4?", "3 + 4 is 7.", "7")
    keys = {row_key(*row)}
    for place, other in enumerate(("Be long.", "What is 3 - 4?", "4 + 3 is 7.", "8")):
        keys.add(row_key(*row[:place], other, *row[place + 1 :]))
    keys.add(row_key(None, *row[1:]))
    keys.add(row_key(row[0], row[1], None, row[3]))
    keys.add(row_key(row[1], row[0], *row[2:]))
    assert len(keys) == 8


def test_rows_that_differ_in_spacing_and_case_are_one():
    assert row_key(None, "What is 3 + 4?", "So,\n\n3 + 4 is 7.", "It is 7.") == row_key(
        "", "what is 3 + 4", "so, 3 + 4 is 7. ", "it is\n7."
    )


def test_grams_are_ascending_and_each_once():
    grams = word_grams("a b c d e f g h " * 20)
    assert grams.dtype == np.uint64
    assert len(grams) == 8
    assert (grams[1:] > grams[:-1]).all()


def test_a_text_of_n_words_has_one_gram_and_a_shorter_one_none():
    assert len(word_grams("one two three four five six seven eight")) == 1
    assert word_grams("one two three four five six seven").tolist() == []
    assert len(word_grams("one two three", n=3)) == 1


def test_punctuation_symbols_and_case_do_not_count_in_grams():
    plain = word_grams("let x be the number such that x 2 is 9")
    dressed = word_grams("Let $x$ be the number, such that: $x^{2} is **9**!")
    assert plain.tolist() == dressed.tolist()


def test_the_order_of_words_counts_in_grams():
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    grams = {int(word_grams(" ".join(words))[0])}
    for one, other in combinations(range(8), 2):
        swapped = list(words)
        swapped[one], swapped[other] = words[other], words[one]
        grams.add(int(word_grams(" ".join(swapped))[0]))
    assert len(grams) == 29


def test_where_no_spaces_are_written_every_character_is_a_word():
    assert len(word_grams("已知函数的图象过点")) == 2
    assert len(word_grams("すべての実数について")) == 3
    assert len(word_grams("x是7的倍数吗, 请回答")) == 3


def test_where_spaces_are_written_a_word_keeps_its_vowel_signs():
    assert len(word_grams("एक दो तीन चार पाँच छः सात आठ")) == 1
    assert len(word_grams("하나 둘 셋 넷 다섯 여섯 일곱 여덟")) == 1
    assert len(word_grams("кто где как что чей чья чьё чьи")) == 1


@given(st.text("ab_9+ \x1c\t.", max_size=30), st.sampled_from(["é", "字", "e\u0323"]))
def test_a_character_of_another_script_changes_nothing_in_the_text_before_it(text, other):
    alone, beside = word_grams(f"{text} z", 2), word_grams(f"{text} z {other}", 2)
    assert set(alone.tolist()) <= set(beside.tolist())
    assert len(beside) == len(alone) + 1


def test_neighbouring_sums_do_not_collide():
    hashes = mixed(np.arange(1, 40, dtype=np.uint64))
    weights = multipliers(2)
    sums = (hashes[:, None] * weights[0] + hashes * weights[1]).ravel()
    assert len(np.unique(sums)) == 39 * 39
    assert (multipliers(64) % 2 == 1).all()


def test_half_a_million_different_grams_have_as_many_hashes():
    text = " ".join(f"{i} {i % 7}" for i in range(250_000))
    assert len(word_grams(text)) == 499_993


def test_a_signature_is_what_datasketch_makes_of_the_shingles_one_by_one():
    one_by_one = MinHash(PERMUTATIONS, seed=1, hashfunc=int)
    for run in shingles(STORY):
        one_by_one.update(run)
    assert signature(STORY).tolist() == one_by_one.hashvalues.tolist()


def shingles(text):
    """By the definition, one run at a time."""
    hashes, _ = _tokens(_normalised(text))
    weights = [int(weight) for weight in multipliers(5)]
    sums = [
        sum(int(h) * w for h, w in zip(hashes[i : i + 5], weights, strict=True)) % 2**64
        for i in range(len(hashes) - 4)
    ]
    return [int(run) >> 32 for run in mixed(np.array(sums, np.uint64))]


def test_signatures_estimate_the_jaccard_similarity():
    words = [f"w{i}" for i in range(400)]
    one, other = " ".join(words[:300]), " ".join(words[100:])
    true = 196 / (296 + 296 - 196)
    estimated = (signature(one) == signature(other)).mean()
    assert abs(estimated - true) < 4 * (true * (1 - true) / PERMUTATIONS) ** 0.5


def test_symbols_and_their_order_count_in_a_signature():
    asked = ["What is 3 + 4?", "What is 3 - 4?", "What is 4 + 3?", "3 + 4", "3 - 4", "+", "-"]
    signatures = {tuple(signature(text).tolist()) for text in asked}
    assert len(signatures) == len(asked)


def test_a_signature_of_a_long_text_is_made_in_blocks():
    text = " ".join(f"w{i}" for i in range(10_000))
    halves = [" ".join(f"w{i}" for i in part) for part in (range(5004), range(5000, 10_000))]
    assert signature(text).tolist() == np.minimum(*map(signature, halves)).tolist()


def test_fingerprints_are_the_same_on_every_machine_and_in_every_process():
    key, grams, signed = fingerprint(STORY)
    assert key == 10399328373159371771
    assert grams[:2].tolist() == [953083010809728620, 2371235217722324431]
    assert signed[:3].tolist() == [6946069, 341194988, 80097431]
    row = ("Be brief.", STORY, "59 + 7 - 9 = 57", "57 cards")
    assert row_key(*row) == 9847523214308805455
