"""How fast each type is quantized on one core, beside llama.cpp's ggml_quantize_chunk.

python scripts/bench_kernels.py --out benchmarks/kernels.json

Both take turns on the same core and are timed by the processor time that they use. Their bytes
must be the same. What the first use of a type costs is measured in processes of their own: with
nothing compiled yet, and with compiled code on disk.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import numpy.typing as npt
from record_run import processor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.gguf.kernels import BLOCKS, quantize
from tests.gguf.reference import reference

ROWS, COLUMNS = 256, 4096
ROUNDS = 9
UNWEIGHTED = ("F32", "F16", "BF16", "Q8_0")
"""Types for which an importance matrix makes no difference."""
FIRST = "import pipeline.gguf.kernels.lanes\nfrom time import perf_counter\n" + (
    "import numpy as np\nfrom pipeline.gguf.kernels import quantize\n"
    "values = np.ones((1, 256), np.float32)\nstarted = perf_counter()\n"
    "quantize('{type}', values)\nprint(perf_counter() - started)"
)


def race(type_: str, values: npt.NDArray[Any], importance: npt.NDArray[Any] | None) -> Any:
    """Millions of weights a second of both, and how many times faster ours is: medians."""
    if not np.array_equal(
        quantize(type_, values, importance), reference(type_, values, importance)
    ):
        raise RuntimeError(f"{type_}: the bytes differ")
    rounds = [
        [seconds(lambda f=f: f(type_, values, importance)) for f in (quantize, reference)]
        for _ in range(ROUNDS)
    ]
    ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {
        "ours": round(values.size / ours / 1e6, 1),
        "ggml": round(values.size / theirs / 1e6, 1),
        "ratio": round(statistics.median(b / a for a, b in rounds), 2),
    }


def seconds(work: Callable[[], Any]) -> float:
    started = thread_time()
    work()
    return thread_time() - started


def first_uses() -> Any:
    """Seconds of the first quantization in a process: compiling, and with compiled code on disk."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        child("F32", folder)  # leaves Python's own byte code behind, which is not what is asked
        for type_ in BLOCKS:
            compiling, loading = child(type_, folder), child(type_, folder)
            found[type_] = {"compiling": round(compiling, 2), "from_disk": round(loading, 2)}
    return found


def child(type_: str, folder: str) -> float:
    environment = {key: os.environ[key] for key in os.environ if key != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"NUMBA_CACHE_DIR": f"{folder}/numba", "PYTHONPYCACHEPREFIX": f"{folder}/python"}
    command = [sys.executable, "-c", FIRST.format(type=type_)]
    root = Path(__file__).resolve().parents[1]
    ran = subprocess.run(
        command, check=True, env=environment, cwd=root, capture_output=True, text=True
    )
    return float(ran.stdout)


def importing() -> float:
    """Seconds to import numba."""
    started = perf_counter()
    subprocess.run([sys.executable, "-c", "import numba"], check=True)
    return perf_counter() - started


def vectors() -> str:
    """The widest that the processor has."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("flags")[2].split()
    return "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "none"


def main() -> None:
    parser = argparse.ArgumentParser(description="Race our kernels and llama.cpp's.")
    parser.add_argument("--out", type=Path)
    out: Path | None = parser.parse_args().out
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    random = np.random.default_rng(0)
    values = (random.standard_normal((ROWS, COLUMNS)) * 0.02).astype(np.float32)
    importance = random.random(COLUMNS).astype(np.float32) ** 2
    result = {
        "date": date.today().isoformat(),
        "machine": f"{processor()}, {vectors()}, Python {platform.python_version()}",
        "rounds": ROUNDS,
        "weights": values.size,
        "million_weights_a_second": {t: race(t, values, None) for t in BLOCKS},
        "with_importance": {t: race(t, values, importance) for t in BLOCKS if t not in UNWEIGHTED},
        "first_use_seconds": first_uses(),
        "import_numba_seconds": round(importing(), 2),
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if out:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
