"""Reads the run's published files and fills report.html, self-contained."""

import json
import re
from pathlib import Path
from typing import Any

from pipeline.assets import asset
from pipeline.errors import MissingInput
from pipeline.recipe import Recipe
from pipeline.report.lengths import draw_data
from pipeline.run import Run
from pipeline.run.files import write_text
from pipeline.run.rows import read_jsonl

_SAMPLES = 3
_WIDTH, _HEIGHT = 640, 160


def write_report(recipe: Recipe, run: Run) -> Path:
    """Write report.html and return its path. Raises MissingInput before `pipe eval` has run."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    run.require("eval")
    steps = list(read_jsonl(run.folder("train") / "metrics.jsonl"))
    source = asset("modelfiles/report.html.jinja").read_text(encoding="utf-8")
    environment = ImmutableSandboxedEnvironment(autoescape=True, trim_blocks=True)
    page = environment.from_string(source).render(
        recipe=recipe,
        run=run.name,
        results=scores(run),
        data=_json(run.folder("data") / "stats.json"),
        sources=run.require("data").facts["sources"],
        rows_picture=_inline(draw_data(run)),
        trained=run.require("train").facts,
        files=_files(run),
        curve=_curve([step["loss"] for step in steps]),
        steps=steps,
        size=(_WIDTH, _HEIGHT),
        gates=_gates(run),
        samples=_samples(run),
    )
    path = run.root / "report.html"
    write_text(path, page)
    return path


def scores(run: Run) -> dict[str, Any]:
    """results.json of `pipe eval`, its engines in the order of the work."""
    results: dict[str, Any] = _json(run.folder("eval") / "results.json")
    types = run.require("export").section["export"]["quantize"]
    known = ("base", "adapter", "merged", *types, "ollama")
    engines = results["engines"]
    return results | {"engines": {name: engines[name] for name in known if name in engines}}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _inline(picture: Path) -> str:
    """An SVG without what only a file of its own needs."""
    text = picture.read_text(encoding="utf-8")
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :])


def _files(run: Run) -> list[tuple[str, int]]:
    """(GGUF name, bytes)."""
    outputs = run.require("export").outputs
    return [(name, entry.bytes) for name, entry in outputs.items() if name.endswith(".gguf")]


def _gates(run: Run) -> list[dict[str, Any]]:
    try:
        run.require("check")
    except MissingInput:
        return []
    return list(_json(run.folder("check") / "results.json")["gates"])


def _curve(losses: list[float]) -> str:
    """Points of an SVG polyline, the first step on the left, loss 0 at the bottom."""
    top = max(losses)
    width = _WIDTH / max(1, len(losses) - 1)
    points = (
        f"{number * width:.1f},{_HEIGHT - loss / top * _HEIGHT:.1f}"
        for number, loss in enumerate(losses)
    )
    return " ".join(points)


def _samples(run: Run) -> list[dict[str, Any]]:
    """The first test questions with every engine's answer."""
    rows = list(read_jsonl(run.folder("data") / "test.jsonl"))[:_SAMPLES]
    samples = {row["id"]: {"question": row["question"], "answers": []} for row in rows}
    for answer in read_jsonl(run.folder("eval") / "answers.jsonl"):
        if answer["id"] in samples:
            samples[answer["id"]]["answers"].append(answer)
    return list(samples.values())
