"""Q8_0, Q5_1, Q5_0, Q4_0, Q3_K, Q2_K and plain floats: the bytes that ggml makes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.gguf.kernels import quantize, row_bytes
from tests.gguf.reference import reference

_F32 = npt.NDArray[np.float32]

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_0", "Q5_1", "Q3_K", "Q2_K")
WEIGHTED = ("Q4_0", "Q5_0", "Q5_1", "Q3_K", "Q2_K")
ROWS, COLUMNS = 6, 768


def _weights() -> dict[str, _F32]:
    random = np.random.default_rng(5)
    normal = random.standard_normal((ROWS, COLUMNS))
    alternating = np.where(np.arange(COLUMNS) % 2, 1.0, -1.0) * np.ones((ROWS, 1))
    outliers = np.where(random.random((ROWS, COLUMNS)) < 0.01, 1e4, 1e-3) * normal
    with np.errstate(over="ignore", under="ignore"):
        kinds = {
            "random": normal,
            "heavy-tailed": random.standard_t(2, (ROWS, COLUMNS)) * 0.02,
            "outliers": outliers,
            "constant": np.full((ROWS, COLUMNS), 0.37),
            "negative constant": np.full((ROWS, COLUMNS), -2.5),
            "ties of both signs": alternating * 0.25,
            "positive": np.abs(normal) + 1,
            "whole numbers": np.round(normal * 4),
            "halves": np.round(normal * 4) / 2,
            "zeros": np.zeros((ROWS, COLUMNS)),
            "negative zeros": np.full((ROWS, COLUMNS), -0.0),
            "mostly zeros": np.where(random.random((ROWS, COLUMNS)) < 0.02, normal, -0.0),
            "zeros of both signs": alternating * 0.0,
            "near the least magnitude": normal * 1e-15,
            "tiny": normal * 1e-30,
            "smallest normal": normal * 2.0**-126,
            "denormal": normal * 1e-40,
            "few denormal steps": np.round(normal * 3) * 2.0**-149,
            "scales at the edge of their inverse": normal * 2.0**-125,
            "huge": np.clip(normal * 1e38, -3.4e38, 3.4e38),
            "overflowing products": normal * 1e19,
            "overflowing half": normal * 3e5,
        }
    return {name: np.ascontiguousarray(kind, np.float32) for name, kind in kinds.items()}


def _importance() -> dict[str, _F32]:
    random = np.random.default_rng(6)
    squares = random.standard_normal(COLUMNS) ** 2
    kinds = {
        "random": squares,
        "some zeros": np.where(random.random(COLUMNS) < 0.3, 0.0, squares),
        "equal": np.ones(COLUMNS),
        "zeros": np.zeros(COLUMNS),
        "tiny": squares * 1e-35,
        "huge": squares * 1e30,
    }
    return {name: kind.astype(np.float32) for name, kind in kinds.items()}


WEIGHTS = _weights()
IMPORTANCE = _importance()


def _assert_same(type: str, values: _F32, importance: _F32 | None = None) -> None:
    ours, theirs = quantize(type, values, importance), reference(type, values, importance)
    differing = int((ours != theirs).sum())
    assert differing == 0, f"{differing} of {theirs.size} bytes of {type} differ"


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_bytes_are_those_of_ggml(type: str, kind: str) -> None:
    _assert_same(type, WEIGHTS[kind])


@pytest.mark.parametrize("importance", IMPORTANCE)
@pytest.mark.parametrize("type", WEIGHTED)
def test_the_bytes_with_an_importance_matrix_are_those_of_ggml(type: str, importance: str) -> None:
    for values in WEIGHTS.values():
        _assert_same(type, values, IMPORTANCE[importance])


@pytest.mark.parametrize("type", ["F32", "F16", "BF16", "Q8_0"])
def test_importance_changes_nothing_where_each_weight_is_rounded_alone(type: str) -> None:
    values, importance = WEIGHTS["random"], IMPORTANCE["random"]
    assert np.array_equal(quantize(type, values, importance), quantize(type, values))


@pytest.mark.parametrize("blocks", [1, 2, 3, 7, 8, 63, 64, 65, 127, 128, 129])
@pytest.mark.parametrize("type", ["Q8_0", "Q4_0", "Q5_0", "Q5_1", "Q3_K", "Q2_K"])
def test_any_number_of_blocks_fills_its_bytes(type: str, blocks: int) -> None:
    width = 256 if type.endswith("K") else 32
    random = np.random.default_rng(blocks)
    values = random.standard_normal((blocks, width)).astype(np.float32)
    importance = random.random(width).astype(np.float32)
    for rows in (values, values.reshape(1, -1)):
        known = np.resize(importance, rows.shape[1])
        assert quantize(type, rows).shape == (len(rows), row_bytes(type, rows.shape[1]))
        _assert_same(type, rows)
        _assert_same(type, rows, known)


def _finite(raw: bytes) -> _F32:
    """Any finite floats, rows of 256: an exponent of infinity loses its highest bit."""
    bits = np.frombuffer(raw, np.uint32).copy()
    bits[(bits & 0x7F800000) == 0x7F800000] &= ~np.uint32(1 << 30)
    return bits.view(np.float32).reshape(-1, 256)


def _narrow(raw: bytes, exponent: int) -> _F32:
    """Floats of eight neighbouring exponents from `exponent`."""
    bits = np.frombuffer(raw, np.uint32)
    near = (bits & np.uint32(0x83FFFFFF)) + np.uint32(exponent << 23)
    return near.view(np.float32).reshape(-1, 256)


_RAW = st.binary(min_size=1024, max_size=1024)


@pytest.mark.parametrize("type", TYPES)
@settings(max_examples=25, deadline=None)
@given(raw=_RAW)
@example(raw=bytes(1024))
def test_any_finite_bit_patterns_become_the_bytes_of_ggml(type: str, raw: bytes) -> None:
    _assert_same(type, _finite(raw))


@pytest.mark.parametrize("type", TYPES)
@settings(max_examples=25, deadline=None)
@given(raw=_RAW, exponent=st.integers(0, 247))
def test_weights_of_any_one_magnitude_become_the_bytes_of_ggml(
    type: str, raw: bytes, exponent: int
) -> None:
    _assert_same(type, _narrow(raw, exponent))


@pytest.mark.parametrize("type", WEIGHTED)
@settings(max_examples=25, deadline=None)
@given(raw=_RAW, known=_RAW, exponent=st.integers(0, 247))
def test_any_finite_importance_gives_the_bytes_of_ggml(
    type: str, raw: bytes, known: bytes, exponent: int
) -> None:
    importance = np.abs(_narrow(known, 120)[0])
    _assert_same(type, _finite(raw), importance)
    _assert_same(type, _narrow(raw, exponent), importance)


@pytest.mark.parametrize("type", TYPES)
def test_threads_at_once_make_the_bytes_of_one(type: str) -> None:
    random = np.random.default_rng(9)
    slabs = [random.standard_normal((64, 512)).astype(np.float32) for _ in range(8)]
    alone = [quantize(type, slab) for slab in slabs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda slab: quantize(type, slab), slabs))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
