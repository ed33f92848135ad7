"""Texts against texts, held against the libraries themselves and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from pipeline.evaluate.text_metrics import bleu_of, bleu_statistics, repetition, rouge_l

WORDS = st.lists(st.sampled_from(["a", "cat", "sat", "on", "the", "mat", "."]), max_size=9)
SENTENCES = st.lists(st.tuples(WORDS, WORDS.filter(bool)), min_size=1, max_size=6)


@given(SENTENCES)
def test_summed_statistics_give_the_corpus_bleu_of_sacrebleu(
    pairs: list[tuple[list[str], list[str]]],
) -> None:
    texts = [(" ".join(said), " ".join(wanted)) for said, wanted in pairs]
    sums = np.sum([bleu_statistics(*pair) for pair in texts], axis=0)[None]
    said, wanted = zip(*texts, strict=True)
    expected = BLEU().corpus_score(list(said), [list(wanted)]).score
    assert bleu_of(sums)[0] == pytest.approx(expected, abs=1e-9)


def test_many_sums_at_once_are_each_their_own() -> None:
    one = bleu_statistics("the cat sat on the mat", "the cat sat on a mat")
    other = bleu_statistics("a dog", "the cat sat on a mat")
    together = bleu_of(np.array([one, other]))
    assert together[0] > 40 and together[1] < 5
    assert bleu_of(np.array([one]))[0] == together[0]


def test_nothing_to_compare_with_is_no_bleu_rather_than_none() -> None:
    assert np.isnan(bleu_of(np.zeros((1, 10)))[0])


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence() -> None:
    # "it is" of three words each: precision and recall 2/3
    assert rouge_l("It is 4.", "it is 5") == pytest.approx(2 / 3)
    assert rouge_l("", "it is 5") == 0.0


def test_repetition_is_the_share_of_four_words_said_before() -> None:
    assert repetition("one two three four five") == 0.0
    # 5 four-grams, of which 1 2 3 1 and 2 3 1 2 come twice
    assert repetition("1 2 3 1 2 3 1 2") == pytest.approx(2 / 5)
    assert repetition("no " * 100) == pytest.approx(1 - 1 / 97)
    assert repetition("too few words") == 0.0
