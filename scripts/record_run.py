"""Keep a finished run's figures, with the date and the machine's name.

python scripts/record_run.py runs/demo --out benchmarks/demo.json
"""

import argparse
import json
import platform
from datetime import date
from pathlib import Path
from typing import Any


def figures(run: Path) -> dict[str, Any]:
    """Scores, seconds by stage, gates and training figures of a run whose stages are done."""
    stages = sorted(path.parent.name for path in run.glob("*/timing.json"))
    log = _json(run / "train" / "training_log.json")
    return {
        "date": date.today().isoformat(),
        "machine": f"{processor()}, {platform.system()}, Python {platform.python_version()}",
        "seconds": {stage: _json(run / stage / "timing.json") for stage in stages},
        "training": {key: log[key] for key in log if key != "steps_logged"},
        "results": _json(run / "eval" / "results.json"),
        "gates": {
            gate["name"]: gate["status"] for gate in _json(run / "check" / "results.json")["gates"]
        },
    }


def processor() -> str:
    """Its name and cores, as Linux tells them."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores"


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Keep a finished run's figures.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    text = json.dumps(figures(options.run), indent=2, sort_keys=True) + "\n"
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
