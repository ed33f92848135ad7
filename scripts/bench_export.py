"""How fast an adapter becomes quantized GGUFs: the usual three steps against `pipe export`.

    python scripts/bench_export.py --llama-cpp SOURCE --tokenizer DIR/tokenizer.json

Bases of Llama 3.2's shapes with random weights and a rank-16 adapter are made in --work. Each way
runs as the commands that a person would type, with all cores, one after the other in one run:

- peer_q4_k_m: PEFT merge, convert_hf_to_gguf.py to BF16, llama-quantize Q4_K_M;
- peer_q8_0: PEFT merge, convert_hf_to_gguf.py --outtype q8_0;
- q4_k_m, q5_k_m, q8_0, all: `pipe export` to one type, and to the three in one pass;
- first: q4_k_m with nothing compiled yet.

Memory is what the processes allocated themselves, mapped files excluded; disk is what lay in the
folder at the worst moment beyond what stayed. llama.cpp's converter comes with its source: unpack
llama-cpp-python's sdist and name its vendor/llama.cpp.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from bench_export_models import build
from bench_measure import own, watch
from record_run import processor

HERE = Path(__file__).parent
INSTALLED = Path(str(find_spec("llama_cpp").origin)).parents[1]  # type: ignore[union-attr]
# llama.cpp's programs find their libraries by it
ENVIRONMENT = {**os.environ, "LD_LIBRARY_PATH": str(INSTALLED / "lib")}
PIPE = (sys.executable, "-m", "pipeline")
TYPES = ("Q4_K_M", "Q5_K_M", "Q8_0")
TARGETS = {"q4_k_m": 10.0, "q8_0": 6.0}
"""Times the usual way, by issue 5."""


@dataclass(frozen=True)
class Ran:
    """One way, once."""

    seconds: float
    steps: dict[str, float]
    own_mib: float
    """Highest of its own allocations."""
    disk_beyond_mib: float
    files: dict[str, int]
    """Bytes of what stayed."""


class Race:
    def __init__(self, options: argparse.Namespace, shape: str) -> None:
        self.work, self.llama_cpp = options.work, options.llama_cpp
        self.base, self.adapter = build(options.work, shape, options.tokenizer)
        self.out = self.work / "out"

    def peer(self, type: str) -> list[tuple[str, list[str]]]:
        script = [sys.executable, str(HERE / "bench_export_peer.py")]
        merged, whole = str(self.out / "merged"), str(self.out / "whole.gguf")
        final = str(self.out / f"peer-{type}.gguf")
        quantize = INSTALLED / "bin" / "llama-quantize"
        convert = [*script, "convert", str(self.llama_cpp), merged]
        steps = [("merge", [*script, "merge", str(self.base), str(self.adapter), merged])]
        if type == "Q8_0":
            return [*steps, ("convert", [*convert, "q8_0", final])]
        return [
            *steps,
            ("convert", [*convert, "bf16", whole]),
            ("quantize", [str(quantize), whole, final, type, str(os.cpu_count())]),
        ]

    def ours(self, *types: str) -> list[tuple[str, list[str]]]:
        where = ["--base", str(self.base), "--adapter", str(self.adapter), "--out", str(self.out)]
        kinds = [word for type in types for word in ("--quantize", type)]
        return [("export", [*PIPE, "export", *where, *kinds, "--no-register"])]

    def run(self, steps: Sequence[tuple[str, list[str]]], **environment: str) -> Ran:
        """Run the commands in an empty folder; intermediates are counted, then removed."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()
        seconds: dict[str, float] = {}
        memory: list[float] = []
        with _DiskPeak(self.out) as disk:
            for name, command in steps:
                # the pages of the base may be cached for both; what is dirty is written first
                watched = watch(command, self.work, {**ENVIRONMENT, **environment}, own)
                seconds[name] = round(watched.end - watched.begin, 2)
                memory.append(watched.peak_mib(watched.begin, watched.end))
        files = {path.name: path.stat().st_size for path in self.out.glob("*-*.gguf")}
        beyond = max(0, disk.peak - sum(files.values())) / 2**20
        total = round(sum(seconds.values()), 2)
        return Ran(total, seconds, max(memory), round(beyond, 1), files)


class _DiskPeak:
    """Watches how much a folder holds."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.peak = folder, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_DiskPeak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.peak = max(self.peak, sum(map(_size, self._folder.rglob("*"))))


def _size(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512 if path.is_file() else 0
    except OSError:
        return 0


def race(options: argparse.Namespace, shape: str) -> dict[str, Any]:
    """Every way `--rounds` times, by turns; medians."""
    track = Race(options, shape)
    ways = {
        "q4_k_m": track.ours("Q4_K_M"),
        "q5_k_m": track.ours("Q5_K_M"),
        "q8_0": track.ours("Q8_0"),
        "all": track.ours(*TYPES),
        "peer_q4_k_m": track.peer("Q4_K_M"),
        "peer_q8_0": track.peer("Q8_0"),
    }
    cold = options.work / "compiled"
    shutil.rmtree(cold, ignore_errors=True)
    first = track.run(ways["q4_k_m"], NUMBA_CACHE_DIR=str(cold))
    print(shape, "first", asdict(first), file=sys.stderr, flush=True)
    shutil.rmtree(cold, ignore_errors=True)
    track.run(track.ours(*TYPES))  # compiles what the cache lacks
    runs: dict[str, list[Ran]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, steps in ways.items():
            if name in options.ways or not options.ways:
                runs[name].append(track.run(steps))
                print(shape, name, asdict(runs[name][-1]), file=sys.stderr, flush=True)
    return {"first": asdict(first)} | _figures({k: v for k, v in runs.items() if v})


def _figures(runs: dict[str, list[Ran]]) -> dict[str, Any]:
    seconds = {name: median(run.seconds for run in each) for name, each in runs.items()}
    result: dict[str, Any] = {
        name: {
            **asdict(each[0]),
            "seconds": seconds[name],
            "all_seconds": [run.seconds for run in each],
            "own_mib": max(run.own_mib for run in each),
        }
        for name, each in runs.items()
    }
    for name, target in TARGETS.items():
        if f"peer_{name}" in seconds and name in seconds:
            times = round(seconds[f"peer_{name}"] / seconds[name], 2)
            result[name] |= {"times_faster": times, "target": target}
    alone = [seconds.get(name) for name in ("q4_k_m", "q5_k_m", "q8_0")]
    if "all" in seconds and all(alone):
        share = round(seconds["all"] / sum(filter(None, alone)), 3)
        result["all"] |= {"share_of_three_alone": share, "target": 0.6}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument(
        "--tokenizer", type=Path, default=HERE.parent / "data/tiny-llama/tokenizer.json"
    )
    parser.add_argument("--work", type=Path, default=Path("build/bench_export"))
    parser.add_argument("--shape", action="append", choices=("1B", "3B"))
    parser.add_argument("--ways", nargs="*", default=())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    result = {
        "date": date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {
            n: version(n) for n in ("numba", "numpy", "peft", "torch", "llama-cpp-python")
        },
        "shapes": {shape: race(options, shape) for shape in options.shape or ("1B",)},
    }
    text = json.dumps(result, indent=2) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
