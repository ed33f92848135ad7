"""Q4_K, Q5_K and Q6_K have the bytes of llama.cpp, whatever the weights; and the kernels' edges."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.gguf.kernels import BLOCKS, lanes, quantize, row_bytes
from tests.gguf.reference import GGML_TYPES, library, reference

F32 = npt.NDArray[np.float32]
TYPES = ("Q4_K", "Q5_K", "Q6_K")
FLOATS = np.finfo(np.float32)


def _random(seed: int, rows: int, columns: int) -> F32:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def _trained(rows: int, columns: int) -> F32:
    """Heavy tails, as in a trained matrix, rounded to BF16 as it would be stored."""
    random = np.random.default_rng(7)
    values = (random.standard_t(4, (rows, columns)) * 0.02).astype(np.float32)
    return np.asarray(values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _mixed(rows: int, columns: int) -> F32:
    """A random power of two for each sub-block of 16 weights, over all that fp32 has."""
    random = np.random.default_rng(8)
    powers = random.integers(-149, 128, (rows, columns // 16, 1))
    values = np.ldexp(random.uniform(-1, 1, (rows, columns // 16, 16)), powers)
    return values.astype(np.float32).reshape(rows, columns)


def _outliers() -> F32:
    values = _random(9, 6, 1024)
    values[:, ::97] *= 1000
    values[:, ::211] = 0
    return values


def _sparse() -> F32:
    """One weight in 30 is not zero: most sub-blocks are zeros, many have one weight."""
    kept = np.random.default_rng(10).random((6, 1024)) < 1 / 30
    return _random(11, 6, 1024) * kept.astype(np.float32)


def _halves() -> F32:
    """Whole and half steps, which fall between two levels: ties."""
    whole = np.random.default_rng(12).integers(-31, 32, (6, 1024))
    return (whole / 2).astype(np.float32)


CASES: dict[str, F32] = {
    "random": _random(1, 5, 1280),
    "one odd block": _random(2, 1, 256),
    "an even number of blocks": _random(3, 4, 2048),
    "trained": _trained(6, 1024),
    "every exponent": _mixed(24, 1024),
    "zeros": np.zeros((3, 512), np.float32),
    "negative zeros": np.full((3, 512), -0.0, np.float32),
    "a positive constant": np.full((3, 512), 0.37, np.float32),
    "a negative constant": np.full((3, 512), -0.37, np.float32),
    "the largest float": np.full((3, 512), FLOATS.max, np.float32),
    "huge": _random(4, 4, 512) * np.float32(1e37),
    "tiny": _random(5, 4, 512) * np.float32(1e-30),
    "around what counts as zero": _random(13, 16, 512) * np.float32(1e-15),
    "denormal": _random(6, 4, 512) * np.float32(1e-41),
    "smallest denormal": np.where(_random(14, 4, 512) > 0, FLOATS.smallest_subnormal, 0),
    "all positive": np.abs(_random(15, 4, 1024)) + 1,
    "all negative": -np.abs(_random(16, 4, 1024)) - 1,
    "far from zero": _random(17, 4, 1024) * np.float32(1e-3) - 1,
    "outliers": _outliers(),
    "sparse": _sparse(),
    "ties": _halves(),
    "few values": np.sign(_random(18, 6, 1024)) * (_random(21, 6, 1024) > 0),
    "a ramp": np.linspace(-1, 1, 4096, dtype=np.float32).reshape(4, 1024),
}


def _importance(kind: str, columns: int) -> F32 | None:
    random = np.random.default_rng(19)
    some = random.random(columns).astype(np.float32) ** 4
    kinds: dict[str, F32 | None] = {
        "no importance": None,
        "random importance": some,
        "importance with zeros": np.where(random.random(columns) < 0.5, 0, some),
        "equal importance": np.full(columns, 0.25, np.float32),
        "no importance anywhere": np.zeros(columns, np.float32),
        "huge importance": some * np.float32(1e36),
        "tiny importance": some * np.float32(1e-40),
    }
    chosen = kinds[kind]
    return chosen if chosen is None else chosen.astype(np.float32)


IMPORTANCE = (
    "no importance",
    "random importance",
    "importance with zeros",
    "equal importance",
    "no importance anywhere",
    "huge importance",
    "tiny importance",
)


@pytest.mark.parametrize("importance", IMPORTANCE)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("type_", TYPES)
def test_bytes_are_those_of_llama_cpp(type_: str, case: str, importance: str) -> None:
    values = np.ascontiguousarray(CASES[case], np.float32)
    weights = _importance(importance, values.shape[1])
    _assert_same(type_, values, weights)


@pytest.mark.parametrize("blocks", [*range(1, 18), 63, 64, 65])
@pytest.mark.parametrize("type_", TYPES)
def test_any_number_of_blocks_is_handled(type_: str, blocks: int) -> None:
    values = _random(blocks, 1, blocks * 256)
    _assert_same(type_, values)
    _assert_same(type_, values.reshape(blocks, 256), np.abs(_random(20, 1, 256)[0]))


@pytest.mark.parametrize("type_", TYPES)
def test_scales_past_six_bits_are_matched(type_: str) -> None:
    # heavy tails that hardly count make some scales negative, which Q4_K stores as they wrap around
    random = np.random.default_rng(1)
    values = random.standard_t(1.2, (64, 1024)).astype(np.float32)
    importance = np.where(random.random(1024) < 0.8, 0, random.random(1024))
    _assert_same(type_, values, importance.astype(np.float32))


@pytest.mark.parametrize("type_", TYPES)
def test_no_rows_make_no_bytes(type_: str) -> None:
    assert quantize(type_, np.empty((0, 512), np.float32)).shape == (0, row_bytes(type_, 512))


def _finite(bits: npt.NDArray[np.uint32]) -> F32:
    """Bit patterns as floats; those of infinities and NaN lose their top exponent bit."""
    special = (bits & np.uint32(0x7F800000)) == np.uint32(0x7F800000)
    finite = np.where(special, bits & np.uint32(0xBFFFFFFF), bits)
    return finite.astype(np.uint32).view(np.float32)


BITS = arrays(np.uint32, (1, 512), elements=st.integers(0, 2**32 - 1)).map(_finite)
NUMBERS = arrays(np.float32, (1, 512), elements=st.floats(-8, 8, width=32))
FEW = arrays(np.float32, (1, 512), elements=st.sampled_from([-3.0, -1.5, 0.0, 1e-16, 1e-3, 2.0]))
WEIGHTS = arrays(np.float32, 512, elements=st.floats(0, 1e6, width=32))


@pytest.mark.parametrize("type_", TYPES)
@settings(max_examples=60, deadline=None)
@given(values=BITS | NUMBERS | FEW, importance=st.none() | WEIGHTS)
def test_any_finite_weights_have_llama_cpps_bytes(
    type_: str, values: F32, importance: F32 | None
) -> None:
    _assert_same(type_, values, importance)


@pytest.mark.parametrize("type_", TYPES)
def test_threads_make_the_bytes_that_one_makes(type_: str) -> None:
    slabs = [_random(seed, 8, 2304) for seed in range(12)]
    alone = [quantize(type_, slab) for slab in slabs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda slab: quantize(type_, slab), slabs))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("type_", BLOCKS)
def test_rows_are_as_long_as_ggml_says(type_: str) -> None:
    assert row_bytes(type_, 2560) == library().ggml_row_size(GGML_TYPES[type_], 2560)


def test_columns_must_fill_blocks() -> None:
    with pytest.raises(ValueError, match="300 columns do not fill Q4_K blocks of 256 weights"):
        row_bytes("Q4_K", 300)


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(ValueError, match="Q9_K is none of F32, F16"):
        row_bytes("Q9_K", 256)


@pytest.mark.parametrize(
    "values",
    [np.zeros((2, 256)), np.zeros(256, np.float32), np.zeros((2, 512), np.float32)[:, ::2]],
    ids=["float64", "one dimension", "not contiguous"],
)
def test_other_arrays_are_refused(values: F32) -> None:
    with pytest.raises(ValueError, match="values must be float32"):
        quantize("Q4_K", values)


def test_importance_must_have_one_weight_a_column() -> None:
    with pytest.raises(ValueError, match=r"importance must be float32 \[256\]"):
        quantize("Q4_K", np.zeros((2, 256), np.float32), np.zeros(512, np.float32))


@pytest.fixture
def confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Compiles and runs a function where neither the sources' folder nor the home takes files.

    Says its result and numba's folder for compiled code; the shared folder is `tmp_path`/shared.
    """
    room, shared = tmp_path / "room", tmp_path / "shared"
    for folder in (room, shared):
        folder.mkdir()
    shutil.copy(lanes.__file__, room)
    # a file where a folder is wanted stops root too
    (room / "__pycache__").touch()
    (room / "use.py").write_text(
        "import lanes\n"
        "@lanes.compiled\n"
        "def twice(number):\n"
        "    return 2 * number\n"
        "print(twice(21), lanes.numba.config.CACHE_DIR)\n"
    )
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", os.devnull)
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    monkeypatch.setenv("TMPDIR", str(shared))
    command = [sys.executable, str(room / "use.py")]
    return lambda: subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.e2e  # compiles anew
def test_compiled_code_is_kept_in_a_private_folder_where_no_other_takes_it(
    confined: Callable[[], str], tmp_path: Path
) -> None:
    folder = tmp_path / "shared" / f"r1pipe-{os.getuid()}"
    result, _, place = confined().strip().partition(" ")
    assert (
        result == "42" and Path(place).parent == folder and folder.stat().st_mode & 0o777 == 0o700
    )
    assert list(Path(place).glob("*/*.nbi"))


@pytest.mark.e2e  # compiles anew
@pytest.mark.parametrize("foreign", ["open to all", "a link", "another user's"])
def test_a_shared_folder_that_others_may_write_to_holds_no_code(
    confined: Callable[[], str], tmp_path: Path, foreign: str
) -> None:
    user = os.getuid()
    if foreign == "another user's":
        # only root could give a folder away: the process takes itself for another instead
        user += 1
        script = tmp_path / "room" / "use.py"
        script.write_text(f"import os\nos.getuid = lambda: {user}\n{script.read_text()}")
    folder, elsewhere = tmp_path / "shared" / f"r1pipe-{user}", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if foreign == "a link":
        folder.symlink_to(elsewhere)
    else:
        folder.mkdir(mode=0o700)
    if foreign == "open to all":
        folder.chmod(0o777)
    assert confined().strip() == "42"
    assert not list(folder.iterdir())


def _assert_same(type_: str, values: F32, importance: F32 | None = None) -> None:
    ours, theirs = quantize(type_, values, importance), reference(type_, values, importance)
    different = np.flatnonzero((ours != theirs).any(axis=1))
    assert not len(different), f"{len(different)} rows differ, the first is row {different[0]}"
