"""Runs the contenders' processes in turns, or lets them warm up at once and go one by one."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

LIMIT = 420
"""Seconds for one contender."""
WARM_UP_LIMIT = 200
"""Seconds for all to warm up; who is not ready then is timed while others still do."""
ROOT = Path(__file__).parents[2]

Commands = Mapping[str, Sequence[str]]


def one_by_one(commands: Commands, folder: Path, turn: int) -> dict[str, Any]:
    """Each contender's figures, or {"failed": why}; the round begins with number `turn`."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in _rotated(list(commands), turn):
        process = _started(commands[name], folder, name)
        found[name] = _figures(process, folder, name)
    return {name: found[name] for name in commands}


def together(commands: Commands, folder: Path, turn: int) -> dict[str, Any]:
    """The same; all start at once, and each waits at its gate until the card is its own."""
    folder.mkdir(parents=True, exist_ok=True)
    names = _rotated(list(commands), turn)
    gates = {name: folder / f"{name}.gate" for name in names}
    for left in folder.glob("*.gate*"):  # open ones, of an earlier race
        left.unlink()
    running = {
        name: _started([*commands[name], "--gate", str(gates[name])], folder, name)
        for name in names
    }
    over = monotonic() + WARM_UP_LIMIT
    while monotonic() < over and not all(
        Path(f"{gates[name]}.ready").exists() or running[name].poll() is not None for name in names
    ):
        sleep(0.2)
    found = {}
    for name in names:
        gates[name].touch()
        found[name] = _figures(running[name], folder, name)
    return {name: found[name] for name in commands}


def _rotated(names: list[str], turn: int) -> list[str]:
    first = turn % len(names)
    return names[first:] + names[:first]


def _started(command: Sequence[str], folder: Path, name: str) -> "subprocess.Popen[bytes]":
    print(f"{name} ...", file=sys.stderr, flush=True)
    out = folder / f"{name}.json"
    out.unlink(missing_ok=True)
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--out", str(out)],
            cwd=ROOT,
            # offline, and its own cache: a contender finds nothing that another has compiled
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _figures(process: "subprocess.Popen[bytes]", folder: Path, name: str) -> dict[str, Any]:
    try:
        code: int | str = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = f"no end within {LIMIT} s"
    out = folder / f"{name}.json"
    if code == 0 and out.exists():
        figures: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return figures
    log = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    return {"failed": f"{code}: " + " | ".join(log.strip().splitlines()[-3:])[-600:]}
