"""What the benchmarks measure by: memory of a process tree, and a row's fingerprint."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow

EVERY = 0.2
"""Seconds between two samples of memory."""
IGNORE = -100


@dataclass(frozen=True)
class Watched:
    """One command's run: monotonic seconds of its begin and end, and (second, bytes) samples."""

    begin: float
    end: float
    samples: tuple[tuple[float, int], ...]

    def peak_mib(self, begin: float, end: float) -> float:
        """Highest memory of the process tree between two moments."""
        # the sample before counts too, where the work is shorter than EVERY
        held = [size for second, size in self.samples if begin - EVERY <= second <= end]
        return round(max(held, default=0) / 2**20, 1)


def watch(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    memory: Callable[[int], int] | None = None,
) -> Watched:
    """Run a command in `folder`, its output in output.txt there, sampling its tree's memory.

    `memory` gives a process's bytes, its proportional set size unless told otherwise.
    Raises RuntimeError with the end of that output where the command fails.
    """
    output = folder / "output.txt"
    samples: list[tuple[float, int]] = []
    os.sync()
    with output.open("w", encoding="utf-8") as file:
        begin = monotonic()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            samples.append((monotonic(), _tree(process.pid, memory or pss)))
            try:
                process.wait(EVERY)
            except subprocess.TimeoutExpired:
                continue
        end = monotonic()
    if process.returncode:
        tail = output.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"{' '.join(command)} exited {process.returncode}:\n{tail}")
    return Watched(begin, end, tuple(samples))


def pss(process: int) -> int:
    """Proportional set size of a process in bytes."""
    return _kib(Path(f"/proc/{process}/smaps_rollup"), "Pss:") * 1024


def own(process: int) -> int:
    """What a process allocated itself, in bytes: resident memory without mapped files."""
    status = Path(f"/proc/{process}/status")
    return (_kib(status, "RssAnon:") + _kib(status, "RssShmem:")) * 1024


def _tree(root: int, memory: Callable[[int], int]) -> int:
    """The memory of a process and all its descendants, in bytes."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        # the name in parentheses may hold anything; the parent is the second field behind it
        fields = _read(path).rpartition(")")[2].split()
        if fields:
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        total += memory(process)
        waiting += children.get(process, [])
    return total


def _kib(path: Path, key: str) -> int:
    for line in _read(path).splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def _read(path: Path) -> str:
    """Empty where the process has gone."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def fingerprint(ids: Any, labels: Any) -> str:
    """Of one example's ids and labels, as numpy arrays of whatever integers."""
    digest = hashlib.blake2b(digest_size=16)
    for values in (ids, labels):
        digest.update(values.astype("<i4").tobytes())
    return digest.hexdigest()


@dataclass
class Seen:
    """Fingerprints of examples by row id, and how many tokens they have."""

    rows: dict[str, str]
    tokens: int = 0

    def add(self, row: str, print_: str, tokens: int) -> None:
        if row in self.rows:
            raise ValueError(f"row {row} comes twice")
        self.rows[row] = print_
        self.tokens += tokens


def seen_of(path: Path, names: list[str]) -> Seen:
    """An Arrow stream of pipeline.data's examples, which are in the order of `names`."""
    seen = Seen({})
    examples = pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all()
    columns = (examples.column("input_ids"), examples.column("target_start"))
    for name, ids, start in zip(names, *columns, strict=True):
        values = ids.values.to_numpy()
        seen.add(name, _fingerprint_from(values, start.as_py()), len(values))
    return seen


def keep(path: Path, seen: Seen, begin: float, end: float, **apart: float) -> None:
    """Write what a contender did; `apart` are seconds of what does not count."""
    result = {
        "begin": begin,
        "end": end,
        "apart": {name: round(seconds, 2) for name, seconds in apart.items()},
        "tokens": seen.tokens,
        "rows": seen.rows,
    }
    path.write_text(json.dumps(result), encoding="utf-8")


def _fingerprint_from(ids: Any, target_start: int) -> str:
    """Of an example that says where its labels begin."""
    labels = ids.copy()
    labels[:target_start] = IGNORE
    return fingerprint(ids, labels)
