"""What all kernels share: numba's settings, ggml's rounding, half floats, scratch of a thread.

A kernel works on many blocks at once, one to a vector lane. Within a lane the operations and their
order are ggml's, without contraction or fast-math, so the bytes are the same.
"""

import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]

_OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False, "fastmath": False}
_Function = TypeVar("_Function", bound=Callable[..., Any])

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector."""
MAGIC = np.float32(12582912.0)
"""1.5 * 2**23: a float near it has its integer in the low 23 bits (ggml-quants.c nearest_int)."""
_LOW_BITS = np.int32(0x7FFFFF)
_EXPONENT = np.int32(0x4B000000)
_MIDDLE = np.int32(0x400000)


def _use_widest_vectors() -> None:
    """Let LLVM take 512-bit vectors where there are any; by itself it prefers 256 bits.

    numba must not have compiled anything in this process before. NUMBA_CPU_NAME and
    NUMBA_CPU_FEATURES go first.
    """
    if os.environ.get("NUMBA_CPU_NAME") or os.environ.get("NUMBA_CPU_FEATURES"):
        return
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        numba.config.CPU_NAME = llvm.get_host_cpu_name()
        numba.config.CPU_FEATURES = f"{features.flatten()},-prefer-256-bit"


def _keep_code_by_source() -> bool:
    """Choose a folder for compiled code that changes with any kernel; False where none will do.

    numba itself would look at a function's own file only, and miss changes in its helpers.
    NUMBA_CACHE_DIR goes first.
    """
    if not numba.config.CACHE_DIR:
        sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
        name = f"numba-{hashlib.sha256(sources).hexdigest()[:16]}"
        folders = (folder / name for folder in _folders_for_code())
        numba.config.CACHE_DIR = next((str(folder) for folder in folders if _takes(folder)), "")
    return bool(numba.config.CACHE_DIR)


def _folders_for_code() -> Iterator[Path]:
    """Beside the sources, in the user's home, and where all users write."""
    yield Path(__file__).parent / "__pycache__"
    if os.environ.get("HOME"):
        yield Path.home() / ".cache" / "r1pipe"
    shared = Path(tempfile.gettempdir()) / f"r1pipe-{os.getuid()}"
    if _is_private(shared):
        yield shared


def _takes(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _is_private(folder: Path) -> bool:
    """Whether only this user writes there: numba's files can run code when they are loaded."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError:
        return False
    own = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
    return own and not about.st_mode & (stat.S_IRWXG | stat.S_IRWXO)


_use_widest_vectors()
_KEEPS_CODE = _keep_code_by_source()


def compiled(function: _Function) -> _Function:
    """numba.njit with IEEE arithmetic as written, the GIL released, compiled code kept on disk."""
    return cast(_Function, numba.njit(cache=_KEEPS_CODE, **_OPTIONS)(function))


def must_compile() -> bool:
    """Whether no kernel has been compiled on this machine yet, which takes seconds a type."""
    kept = numba.config.CACHE_DIR
    return not (kept and any(Path(kept).glob("*/*.nbi")))


def helper(function: _Function) -> _Function:
    """As `compiled`, but only for compiled callers, which take it in: sooner compiled, not kept."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **_OPTIONS}
    return cast(_Function, numba.njit(**options)(function))


@helper
def nearest_int(value: np.float32) -> int:
    """ggml-quants.c nearest_int: half to even; what it makes of huge values, inf and NaN too."""
    bits = np.float32(value + MAGIC).view(np.int32)
    return int((bits & _LOW_BITS) - _MIDDLE)


@helper
def nearest_clamped(value: np.float32, low: np.float32, high: np.float32) -> np.float32:
    """nearest_int, then clamped to whole numbers `low` to `high`, as a float."""
    bits = np.float32(value + MAGIC).view(np.int32)
    # a float again: clamping floats is faster than integers, and as exact
    near = np.int32((bits & _LOW_BITS) | _EXPONENT).view(np.float32)
    near = near if near > MAGIC + low else MAGIC + low
    near = near if near < MAGIC + high else MAGIC + high
    return np.float32(near - MAGIC)


@helper
def nearest_small(value: np.float32, low: np.float32, high: np.float32) -> np.float32:
    """nearest_clamped for magnitudes below 2**22, where nearest_int has nothing to wrap around."""
    near = np.float32(value + MAGIC)
    near = near if near > MAGIC + low else MAGIC + low
    near = near if near < MAGIC + high else MAGIC + high
    return np.float32(near - MAGIC)


@helper
def chosen(condition: bool, yes: np.float32, no: np.float32) -> np.float32:
    """One of two floats, both loaded: a load inside a conditional expression is not vectorized."""
    return yes if condition else no


@helper
def to_half(value: np.float32) -> np.uint16:
    """Bits of the nearest fp16 (ggml-impl.h ggml_compute_fp32_to_fp16)."""
    bits = np.float32(value).view(np.uint32)
    doubled = np.uint32(bits + bits)
    base = np.float32(np.float32(abs(value) * np.float32(2.0**112)) * np.float32(2.0**-110))
    bias = np.uint32(doubled & np.uint32(0xFF000000))
    bias = bias if bias > np.uint32(0x71000000) else np.uint32(0x71000000)
    base = np.float32(
        np.uint32((bias >> np.uint32(1)) + np.uint32(0x07800000)).view(np.float32) + base
    )
    rounded = np.float32(base).view(np.uint32)
    magnitude = ((rounded >> np.uint32(13)) & np.uint32(0x7C00)) + (rounded & np.uint32(0x0FFF))
    if doubled > np.uint32(0xFF000000):
        magnitude = np.uint32(0x7E00)
    return np.uint16(((bits & np.uint32(0x80000000)) >> np.uint32(16)) | magnitude)


@helper
def from_half(half: np.uint16) -> np.float32:
    """The fp16's value, exactly (ggml-impl.h ggml_compute_fp16_to_fp32)."""
    bits = np.uint32(half) << np.uint32(16)
    doubled = np.uint32(bits + bits)
    normal = np.uint32((doubled >> np.uint32(4)) + np.uint32(0xE0 << 23)).view(np.float32)
    normal = np.float32(normal * np.float32(2.0**-112))
    small = np.uint32((doubled >> np.uint32(17)) | np.uint32(126 << 23)).view(np.float32)
    small = np.float32(small - np.float32(0.5))
    magnitude = small if doubled < np.uint32(1 << 27) else normal
    sign = np.uint32(bits & np.uint32(0x80000000))
    return np.uint32(sign | np.float32(magnitude).view(np.uint32)).view(np.float32)


@helper
def put_half(block: U8, at: int, half: np.uint16) -> None:
    block[at], block[at + 1] = half & 0xFF, half >> 8


class Scratch(threading.local):
    """A thread's own buffer of `size` floats, on a 64-byte border: unaligned ones cost 12%."""

    def __init__(self, size: int) -> None:
        raw = np.zeros(size + ALIGNMENT // 4, np.float32)
        start = -raw.ctypes.data % ALIGNMENT // 4
        self.floats: F32 = raw[start : start + size]


def steps(top: float, first: float, delta: float, count: int) -> F32:
    """What each step of a search divides by the range: top + first, delta apart, in fp32."""
    offsets = np.float32(first) + np.float32(delta) * np.arange(count, dtype=np.float32)
    return offsets + np.float32(top)


@helper
def spread(blocks: F32, lanes: F32, n: int, count: int) -> None:
    """Lay super-blocks [some, 256] out in `count` lanes; where super-blocks lack, zeros.

    `lanes` is flat [n, count]. Of sub-blocks of n weights, weight i of sub-block j of super-block s
    comes to [i, j * supers + s], where supers = n * count / 256 super-blocks make a group.
    """
    supers = n * count // 256
    if len(blocks) < supers:
        lanes[:] = np.float32(0)
    for s in range(len(blocks)):
        _spread_one(blocks[s], lanes[s:], n, count)


@helper
def spread_importance(importance: F32, first: int, lanes: F32, n: int, count: int) -> None:
    """`spread` for what weighs the group that begins with super-block `first` of all rows.

    `importance` is [super-blocks of a row, 256], the same in every row.
    """
    for s in range(n * count // 256):
        _spread_one(importance[(first + s) % len(importance)], lanes[s:], n, count)


@helper
def _spread_one(block: F32, lanes: F32, n: int, count: int) -> None:
    supers = n * count // 256
    for j in range(256 // n):
        part, lane = block[j * n : (j + 1) * n], lanes[j * supers :]
        for i in range(n):
            lane[i * count] = part[i]
