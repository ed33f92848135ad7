"""KL divergence and perplexity from kept log-probabilities."""

import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import log_softmax, rel_entr

from pipeline.engines import divergence as module
from pipeline.engines.divergence import divergence, perplexity
from pipeline.errors import PipeError

VOCABULARY = 7
LOGITS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.just(VOCABULARY)),
    elements=st.floats(-30, 30, width=32),
)


def kept(path, logits):
    values = log_softmax(np.asarray(logits, np.float64), axis=1).astype(np.float32)
    values.tofile(path)
    return values.astype(np.float64)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LOGITS, st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_it_is_the_relative_entropy_of_each_position_however_it_is_read(
    tmp_path, logits, seed, chunk
):
    other = logits + np.random.default_rng(seed).normal(size=logits.shape)
    p, q = kept(tmp_path / "p", logits), kept(tmp_path / "q", other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        found = divergence(tmp_path / "p", tmp_path / "q", VOCABULARY)
    expected = rel_entr(np.exp(p), np.exp(q)).sum(axis=1)
    # float32 log-probabilities up to 60 are rounded to 4e-6, and do not add up to 1 exactly
    np.testing.assert_allclose(found.kl, expected, rtol=1e-3, atol=2e-5)
    assert found.same_top.tolist() == (p.argmax(1) == q.argmax(1)).tolist()
    assert (found.kl >= 0).all()


def test_it_is_not_symmetric_and_is_measured_from_the_reference(tmp_path):
    kept(tmp_path / "sure", [[math.log(0.98), math.log(0.01), math.log(0.01)]])
    kept(tmp_path / "unsure", [[math.log(1 / 3)] * 3])
    expected = 0.98 * math.log(0.98 * 3) + 0.02 * math.log(0.01 * 3)
    found = divergence(tmp_path / "sure", tmp_path / "unsure", 3)
    assert found.mean == pytest.approx(expected, rel=1e-5)
    other = divergence(tmp_path / "unsure", tmp_path / "sure", 3)
    assert other.mean > 1.1 * expected


def test_a_model_does_not_diverge_from_itself_even_where_it_rules_tokens_out(tmp_path):
    kept(tmp_path / "p", [[0.0, -np.inf, 1.0], [-np.inf, -np.inf, 0.0]])
    found = divergence(tmp_path / "p", tmp_path / "p", 3)
    assert found.kl.tolist() == [0.0, 0.0]
    assert found.same_top_share == 1.0


def test_ruling_out_what_the_reference_expects_is_an_infinite_divergence(tmp_path):
    kept(tmp_path / "p", [[0.0, 0.0], [1.0, 0.0]])
    kept(tmp_path / "q", [[0.0, -np.inf], [1.0, 0.0]])
    found = divergence(tmp_path / "p", tmp_path / "q", 2)
    assert found.kl.tolist() == [np.inf, 0.0]
    assert found.as_json()["median"] == 0.0


def test_its_figures_for_a_reader(tmp_path):
    spread = np.linspace(0, 4, 200)
    kept(tmp_path / "p", [[0.0, 0.0]] * 200)
    kept(tmp_path / "q", [[x, 0.0] for x in spread])
    found = divergence(tmp_path / "p", tmp_path / "q", 2)
    figures = found.as_json()
    assert json.loads(json.dumps(figures)) == figures
    assert figures["positions"] == 200
    assert figures["same_top"] == 1.0
    assert figures["max"] == found.kl[-1]
    assert figures["p99"] == np.sort(found.kl)[197]
    assert figures["median"] == np.sort(found.kl)[99]
    assert figures["mean"] == pytest.approx(np.mean(np.log(np.cosh(spread / 2))), rel=1e-4)


@pytest.mark.parametrize(
    "sizes, said", [((3, 4), "unlike"), ((0, 0), "no predictions"), ((8, 8), "whole rows")]
)
def test_files_that_do_not_fit_are_refused(tmp_path, sizes, said):
    paths = [tmp_path / "p", tmp_path / "q"]
    for path, size in zip(paths, sizes, strict=True):
        np.zeros(size, np.float32).tofile(path)
    with pytest.raises(PipeError, match=said):
        divergence(*paths, vocabulary=3)


def test_perplexity_is_e_to_the_mean_over_all_tokens_not_over_texts():
    texts = [
        np.log(np.array([0.5], np.float32)),
        np.log(np.full(3, 0.25, np.float32)),
        np.array([]),
    ]
    assert perplexity(texts) == pytest.approx((0.5 * 0.25**3) ** (-1 / 4), rel=1e-6)
    assert perplexity([np.full(9, -math.log(640), np.float32)]) == pytest.approx(640, rel=1e-5)
    assert perplexity([np.array([-np.inf, -1.0])]) == math.inf
    assert perplexity([np.array([-1e4])]) == math.inf
    with pytest.raises(ValueError):
        perplexity([np.array([])])
