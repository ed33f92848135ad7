"""Draw the figures of the pages on ideas; equal code and figures give equal bytes.

python scripts/draw_figures.py                        # from benchmarks/figures.json
python scripts/draw_figures.py --measure runs/demo    # measure a finished demo anew first
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import figure_models as models
import figure_numbers as numbers

from pipeline.report.charts import Chart
from pipeline.report.figure import sheet

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "benchmarks" / "figures.json"


def figures(measured: Mapping[str, Any]) -> dict[str, list[Chart]]:
    """File name -> its panels."""
    return {
        "nf4": numbers.nf4(),
        "int8": numbers.int8(),
        "blocks": numbers.blocks(),
        "double-quantization": numbers.double_quantization(),
        "lora": models.lora(),
        "lora-scaling": models.lora_scaling(),
        "lora-spectrum": models.lora_spectrum(measured),
        "memory-8b": models.memory_8b(),
        "gguf-types": models.gguf_types(measured),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", type=Path, metavar="RUN", help="a finished run of the demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures")
    asked = parser.parse_args()
    if asked.measure:
        from figure_measures import measured

        text = json.dumps(measured(asked.measure), indent=1) + "\n"
        MEASURED.write_text(text, encoding="utf-8")
    asked.out.mkdir(parents=True, exist_ok=True)
    found = json.loads(MEASURED.read_text(encoding="utf-8"))
    for name, charts in figures(found).items():
        (asked.out / f"{name}.svg").write_text(sheet(charts), encoding="utf-8")


if __name__ == "__main__":
    main()
