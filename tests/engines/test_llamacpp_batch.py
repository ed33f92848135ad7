"""Continuous batching and drawing, on a model of a few lines that checks what it is fed."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import log_softmax as reference_log_softmax
from scipy.stats import chisquare

from pipeline.engines import llama_batch
from pipeline.engines.llama_batch import Replies, greedy, sampled
from pipeline.engines.llama_worker import log_softmax

VOCABULARY, END, ROOM = 12, 0, 16
LOGITS = arrays.arrays(np.float32, VOCABULARY, elements=st.floats(-20, 20, width=32))


class Model:
    """Its logits are a function of all that stands before in the same conversation."""

    def __init__(self, sequences):
        self.sequences = sequences
        self._told = defaultdict(list)
        self.calls = []

    def forget(self, sequence):
        self._told.pop(sequence, None)

    def ends(self, token):
        return token == END

    def decode(self, feeds):
        numbers = [feed.sequence for feed in feeds]
        assert numbers == sorted(set(numbers)) and set(numbers) <= set(range(self.sequences))
        assert 0 < sum(len(feed.tokens) for feed in feeds) <= ROOM
        self.calls.append(feeds)
        rows = []
        for feed in feeds:
            told = self._told[feed.sequence]
            assert feed.position == len(told) and feed.tokens
            told.extend(feed.tokens)
            if feed.wanted:
                assert feed.wanted == 1
                rows.append(np.random.default_rng(told).normal(size=VOCABULARY).astype(np.float32))
        return rows


def replies(prompts, sequences, **request):
    """(tokens, gaps, end event) of each prompt."""
    model = Model(sequences)
    asked = {"max_new_tokens": 20, "n_ctx": 60, "temperature": 0.0, "top_p": 1.0, "seed": 1}
    running = Replies(model, {**asked, "prompts": prompts, **request})
    tokens, gaps, ends = ([[] for _ in prompts] for _ in range(3))
    while events := running.step():
        for event in events:
            index = event["index"]
            assert not ends[index]
            gaps[index].append(event["gap"])
            if "token" in event:
                tokens[index].append(event["token"])
            else:
                ends[index].append(event["stopped"])
    assert all(len(end) == 1 for end in ends)
    return tokens, gaps, ends, model


@pytest.fixture(autouse=True)
def small_batch(monkeypatch):
    monkeypatch.setattr(llama_batch, "N_BATCH", ROOM)


PROMPTS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=40), min_size=1, max_size=9)


@settings(max_examples=30)
@given(PROMPTS, st.integers(2, 5), st.sampled_from([0.0, 0.7]), st.sampled_from([0.5, 1.0]))
def test_a_reply_is_the_same_alone_and_among_others(prompts, sequences, temperature, top_p):
    manner = {"temperature": temperature, "top_p": top_p}
    together = replies(prompts, sequences, **manner)
    one_by_one = replies(prompts, 1, **manner)
    assert together[:3] == one_by_one[:3]
    assert len(together[3].calls) <= len(one_by_one[3].calls)


def test_as_one_reply_ends_the_next_conversation_enters():
    prompts = [[token] for token in range(1, 10)]
    tokens, _, _, model = replies(prompts, 3)
    widths = [len(feeds) for feeds in model.calls]
    assert widths == sorted(widths, reverse=True) and widths[0] == 3
    # every token that was chosen is fed but the last of a reply that was cut off
    assert sum(widths) >= sum(map(len, tokens))
    assert widths.count(3) >= sum(widths) // 3 - max(map(len, tokens))


def test_running_replies_go_on_while_a_long_prompt_is_read():
    *_, model = replies([[1], [2] * 50], 2, n_ctx=100, max_new_tokens=4)
    fed = [{feed.sequence: len(feed.tokens) for feed in feeds} for feeds in model.calls]
    assert fed[0] == {0: 1, 1: ROOM - 1}
    assert fed[1].get(0, 1) == 1 and fed[1][1] >= ROOM - 1


def test_the_limit_and_the_context_cut_a_reply_off():
    prompts = [[3], [5] * 55, [7] * 60, [7] * 90]
    tokens, gaps, ends, _ = replies(prompts, 2, max_new_tokens=3)
    for reply, leads, (stopped,) in zip(tokens, gaps, ends, strict=True):
        assert len(reply) <= 3
        # the gap of the token that ended it is the last; a reply cut off has none
        assert (leads[-1] is not None) == stopped
    assert tokens[2:] == [[], []] and ends[2:] == [[False], [False]]
    assert len(replies([[5] * 55], 1)[0][0]) <= 5


def test_an_empty_prompt_has_no_reply_and_holds_nobody_up():
    tokens, _, ends, _ = replies([[], [3], []], 1, max_new_tokens=2)
    assert tokens[0] == tokens[2] == [] and tokens[1]
    assert ends[0] == ends[2] == [False]


def test_an_index_draws_alike_for_a_seed_and_otherwise_for_another():
    prompts = [[1], [1], [1]]
    one = replies(prompts, 2, temperature=1.0)[0]
    assert one == replies(prompts, 3, temperature=1.0)[0]
    assert one != replies(prompts, 3, temperature=1.0, seed=2)[0]
    assert one[0] != one[1]


@given(LOGITS)
def test_greedy_takes_the_first_of_the_likeliest_and_says_its_lead(logits):
    token, gap = greedy(logits)
    order = np.sort(logits)
    assert token == int(np.argmax(logits))
    assert gap == float(order[-1] - order[-2])


@given(LOGITS, st.floats(0.1, 2), st.floats(0.01, 1), st.integers(0, 99))
def test_a_token_is_drawn_from_the_fewest_that_hold_top_p(logits, temperature, top_p, seed):
    token = sampled(logits, temperature, top_p, np.random.default_rng(seed))
    likely = np.exp(reference_log_softmax(logits.astype(np.float64) / temperature))
    before = np.sort(likely)[::-1]
    rank = int((before > likely[token]).sum())
    assert before[:rank].sum() < top_p + 1e-9


def test_tokens_are_drawn_as_often_as_their_probability_says():
    logits = np.log(np.array([0.4, 0.05, 0.3, 0.2, 0.05], np.float32))
    random = np.random.default_rng(5)
    drawn = [sampled(logits, 1.0, 0.8, random) for _ in range(4000)]
    counts = np.bincount(drawn, minlength=5)
    assert counts[[1, 4]].sum() == 0
    assert chisquare(counts[[0, 2, 3]], 4000 * np.array([4, 3, 2]) / 9).pvalue > 0.01


def test_a_low_temperature_and_a_small_nucleus_draw_the_likeliest():
    logits = np.random.default_rng(3).normal(size=500).astype(np.float32)
    best = int(logits.argmax())
    for seed in range(20):
        assert sampled(logits, 1e-3, 1.0, np.random.default_rng(seed)) == best
        assert sampled(logits, 1.0, 1e-9, np.random.default_rng(seed)) == best


@given(arrays.arrays(np.float32, (3, 5), elements=st.floats(-1e4, 1e4, width=32)))
def test_log_softmax_is_that_of_scipy_in_float64(logits):
    found = log_softmax(logits)
    assert found.dtype == np.float32
    expected = reference_log_softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_a_token_that_is_ruled_out_has_no_probability():
    found = log_softmax(np.array([[0.0, -np.inf, 0.0]], np.float32))
    np.testing.assert_allclose(found, [[-math.log(2), -np.inf, -math.log(2)]], rtol=1e-6)
