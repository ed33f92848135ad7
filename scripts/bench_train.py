"""Training speed beside a plain Trainer with PEFT and beside Unsloth's notebooks.

python scripts/bench_train.py [--shape tiny|1b|3b|8b] [--steps N] [--out FILE]

The same base, rows, order, settings and steps for all, each in a process of its own, in turns:
every round begins with another one. `tiny` is the demo's base on its rows, on any processor; the
others have random weights of Llama's shapes and random rows of R1's lengths, and need a GPU.
Tokens are counted without padding, after the warm-up; a ratio is that of two neighbours in a round.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from gpu.turns import one_by_one, together
from record_run import processor

HERE = Path(__file__).parent
DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


class Shape(NamedTuple):
    length: int
    """Tokens of the longest row."""
    batch: int
    accumulation: int
    contenders: tuple[str, ...]


_GPU = ("pipe", "pipe-packed", "peft", "notebook", "notebook-same")
SHAPES = {
    "tiny": Shape(512, 16, 1, ("pipe", "peft", "notebook-same", "notebook", "pipe16", "peft16")),
    "1b": Shape(2048, 16, 1, _GPU),
    "3b": Shape(2048, 8, 2, _GPU),
    "8b": Shape(4096, 4, 4, _GPU),
}
"""Every step takes 16 rows, but for `notebook`, whose own is 2 x 4."""

CONTENDERS: dict[str, tuple[str, ...]] = {
    "pipe": ("pipe",),
    "pipe-packed": ("pipe", "--batching", "packed"),
    "pipe-padded": ("pipe", "--padding", "padded"),
    "pipe-open": ("pipe", "--batching", "packed", "--no-checkpointing"),
    "pipe-deterministic": ("pipe", "--deterministic"),
    "pipe16": ("pipe", "--method", "lora"),
    "peft": ("peft",),
    "peft16": ("peft", "--method", "lora"),
    "notebook": ("notebook", "--batch", "2", "--accumulation", "4"),
    "notebook-same": ("notebook",),
    "notebook16": ("notebook", "--method", "lora"),
}
"""A contender's arguments for scripts/gpu/contender.py; the last of equal ones counts.

`pipe-open` keeps activations, for a card that holds them.
"""

RIVALS = {"pipe": ("peft", "notebook", "notebook-same"), "pipe16": ("peft16", "notebook16")}
"""Whom a contender's speed is divided by."""

SAME_CURVES = (
    ("pipe", "peft", 0.02),
    ("pipe16", "peft16", 0.02),
    ("pipe", "notebook-same", 0.10),
    ("pipe16", "notebook16", 0.10),
)
"""Who must lose alike, and how far apart at most, as a share: the notebook learns the empty thought
of a row without reasoning too, and the demo has some."""


def commands(options: argparse.Namespace, base: Path, rows: Path, out: Path) -> dict[str, Any]:
    """What each contender's process runs but for its `--out`."""
    shape = SHAPES[options.shape]
    common = ["--base", base, "--rows", rows, "--length", shape.length, "--steps", options.steps]
    common += ["--batch", shape.batch, "--accumulation", shape.accumulation]
    common += ["--warm-up", options.warm_up, "--device", options.device]
    common += ["--profile"] if options.profile else []
    script = [sys.executable, HERE / "gpu" / "contender.py"]
    found = {}
    for name in options.contenders or shape.contenders:
        kind, *own = CONTENDERS[name]
        found[name] = [str(part) for part in (*script, kind, *common, *own)]
    out.mkdir(parents=True, exist_ok=True)
    return found


def prepared(options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """The base and its encoded rows, made in `folder` unless they lie there."""
    shape = SHAPES[options.shape]
    if options.shape == "tiny":
        base = HERE.parent / "data" / "tiny-llama"
        encoded = folder / "runs" / "demo" / "data" / "encoded"
        if not encoded.exists():
            prepare = ["-m", "pipeline", "prepare", "--run", "demo", "-r", "demo"]
            where = {"PYTHONPATH": str(HERE.parent)}
            run(prepare, folder, {**os.environ, **where})
        return base, encoded
    base, rows = folder / f"base-{options.shape}", folder / f"rows-{shape.length}"
    if not list(base.glob("*.safetensors")):
        run([str(HERE / "gpu" / "make_base.py"), str(base), "--shape", options.shape], HERE.parent)
    if not rows.exists():
        from gpu.make_rows import write_rows

        write_rows(base, rows, 16 * (options.steps + 2), shape.length)
    return base, rows


def run(arguments: Sequence[str], folder: Path, environment: Any = None) -> None:
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, and the last round's curves."""
    names = [name for name in rounds[0] if all("tokens_per_second" in r[name] for r in rounds)]
    found = {}
    for name in names:
        rates = [each[name]["tokens_per_second"] for each in rounds]
        last = rounds[-1][name]
        kept = ("mfu", "padding_share", "first_step_seconds", "peak_memory_bytes")
        kept += ("losses", "grad_norms")
        found[name] = {
            "tokens_per_second": median(rates),
            "tokens_per_second_by_round": rates,
            "step_seconds_median": median(r[name]["step_seconds_median"] for r in rounds),
            "rows_a_step": last["settings"]["batch"] * last["settings"]["accumulation"],
            **{key: last[key] for key in kept},
        }
        if "profiled_last_step" in last:
            found[name]["profiled_last_step"] = last["profiled_last_step"]
    return found


def ratios(rounds: list[dict[str, Any]], contenders: dict[str, Any]) -> dict[str, float]:
    """Ours over theirs, the median of what each round gave."""
    pairs = [
        (ours, theirs)
        for ours in contenders
        for theirs in RIVALS.get(ours.partition("-")[0], ())
        if theirs in contenders
    ]
    return {
        f"{ours} to {theirs}": round(
            median(r[ours]["tokens_per_second"] / r[theirs]["tokens_per_second"] for r in rounds), 3
        )
        for ours, theirs in pairs
    }


def wrong(contenders: dict[str, Any]) -> list[str]:
    """Who did not learn, or learned something else than the others from the same rows."""
    found = [name for name, each in contenders.items() if not min(each["grad_norms"]) > 0]
    found = [f"{name} has a step without a gradient" for name in found]
    for ours, theirs, tolerance in SAME_CURVES:
        if ours in contenders and theirs in contenders:
            curves = (contenders[ours]["losses"], contenders[theirs]["losses"])
            apart = max(abs(a - b) / b for a, b in zip(*curves, strict=True))
            if apart > tolerance:
                found.append(f"the losses of {ours} and {theirs} are {apart:.1%} apart")
    return found


def show(contenders: dict[str, Any], by: dict[str, float]) -> None:
    print(f"{'contender':<20}{'tokens/s':>10}{'step s':>9}{'padding':>9}{'peak GB':>9}  loss")
    for name, each in contenders.items():
        memory = each["peak_memory_bytes"]
        peak = memory.get("gpu_allocated", memory["resident"]) / 1e9
        losses = each["losses"]
        print(
            f"{name:<20}{each['tokens_per_second']:>10,.0f}{each['step_seconds_median']:>9.3f}"
            f"{each['padding_share']:>9.1%}{peak:>9.2f}  {losses[0]:.4f} -> {losses[-1]:.4f}"
        )
    for pair, ratio in by.items():
        print(f"{pair}: {ratio}")


def measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    base, rows = prepared(options, folder)
    begun = os.getloadavg()[0]
    all_commands = commands(options, base, rows, folder / "out")
    take_turns = together if options.together else one_by_one
    rounds = [
        take_turns(all_commands, folder / "out" / f"{options.shape}-{number}", number)
        for number in range(options.rounds)
    ]
    contenders = summary(rounds)
    first = next((each for each in rounds[0].values() if "versions" in each), {})
    return {
        "date": date.today().isoformat(),
        "device": first.get("device"),
        "processor": processor(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "system": platform.system(),
        "load_before": round(begun, 2),
        "versions": first.get("versions"),
        "shape": options.shape,
        "steps": options.steps,
        "warm_up_steps": options.warm_up,
        "rounds": options.rounds,
        "max_seq_length": SHAPES[options.shape].length,
        "contenders": contenders,
        "ratios": ratios(rounds, contenders),
        "failed": {n: e["failed"] for r in rounds for n, e in r.items() if "failed" in e},
    }


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--warm-up", type=int, default=4, help="first steps, not counted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", type=lambda text: text.split(","), help="a,b,c of them")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: a GPU where one is")
    parser.add_argument("--together", action="store_true", help="warm up at once, run in turns")
    parser.add_argument("--profile", action="store_true", help="the last step's kernels")
    parser.add_argument("--folder", type=Path, help="keep bases, rows and logs here")
    parser.add_argument("--out", type=Path, help="where the result goes as JSON")
    options = parser.parse_args()
    on_gpu = any(Path(path).exists() for path in DRIVERS)
    options.device = options.device or ("cuda" if on_gpu else "cpu")
    if options.shape != "tiny" and options.device == "cpu":
        parser.error(f"the shape {options.shape} needs a GPU: a CPU takes minutes for each step")
    if unknown := set(options.contenders or ()) - set(CONTENDERS):
        parser.error(f"no contender {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")
    return options


def main() -> None:
    options = options_of()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        result = measured(options, folder)
    show(result["contenders"], result["ratios"])
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    bad = wrong(result["contenders"]) + [f"{n}: {why}" for n, why in result["failed"].items()]
    if bad:
        raise SystemExit("\n".join(bad))


if __name__ == "__main__":
    main()
