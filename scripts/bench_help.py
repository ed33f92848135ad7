"""How long `pipe --help` takes, as a whole process, beside `python -c pass`.

python scripts/bench_help.py --out benchmarks/help.json
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path
from time import perf_counter

from record_run import processor

RUNS = 21


def milliseconds(command: list[str]) -> float:
    started = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return 1000 * (perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    out: Path | None = parser.parse_args().out
    commands = {
        "pipe --help": [str(Path(sys.executable).with_name("pipe")), "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    # in turns, so that a slow moment of the machine hits both
    rounds = [{name: milliseconds(c) for name, c in commands.items()} for _ in range(RUNS)]
    medians = {name: round(statistics.median(r[name] for r in rounds), 1) for name in commands}
    result = {
        "date": date.today().isoformat(),
        "machine": f"{processor()}, Python {platform.python_version()}",
        "median_ms": medians,
        "runs": RUNS,
    }
    print(json.dumps(result, indent=2))
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
