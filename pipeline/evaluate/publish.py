"""What `pipe eval` leaves behind: results.json, answers.jsonl and speed.json."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.evaluate.ask import Asked, Outcome
from pipeline.evaluate.items import Item
from pipeline.evaluate.metrics import Measured, Metric
from pipeline.evaluate.results import Scores, pairs_of
from pipeline.evaluate.tasks import TEST
from pipeline.recipe.metrics import EXACT_MATCH
from pipeline.run.files import write_json

Json = dict[str, Any]


@dataclass(frozen=True)
class Findings:
    """All replies of all engines."""

    asked: Sequence[Asked]
    outcomes: Mapping[str, Mapping[str, Outcome]]
    """Engine -> task -> outcome."""
    metrics: tuple[Metric, ...]
    types: Sequence[str]
    """The exported GGUF types; Ollama's plain name is the first."""
    seed: int
    deciding: str = EXACT_MATCH
    """The metric that decides which model is better."""


def write_findings(folder: Path, findings: Findings) -> None:
    """Fill `eval/`. The first task's figures stand on top, further ones under `tasks`."""
    first, *more = findings.asked
    results = _results(findings, first)
    results["tasks"] = {task.name: _results(findings, task) for task in more}
    write_json(folder / "results.json", results)
    with (folder / "answers.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for line in _lines(findings):
            file.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")
    write_json(folder / "speed.json", _speed(findings))


def _results(findings: Findings, task: Asked) -> Json:
    replies = {name: found[task.name].replies for name, found in findings.outcomes.items()}
    scores = Scores(replies, findings.metrics, task.samples, findings.seed)
    decoding = asdict(task.decoding)
    if task.decoding.temperature == 0:
        decoding = {key: decoding[key] for key in ("max_new_tokens", "temperature")}
    return {
        "items": len(task.items),
        "samples": task.samples,
        "decoding": decoding,
        "engines": scores.engines(),
        "comparisons": scores.comparisons(
            pairs_of(list(replies), findings.types), findings.deciding
        ),
    }


def _lines(findings: Findings) -> Iterator[Json]:
    """One reply each: tasks, engines, questions and samples in order."""
    for task in findings.asked:
        for engine, found in findings.outcomes.items():
            turns = zip(task.turns, found[task.name].replies, strict=True)
            for (item, sample), measured in turns:
                yield _asked_of(task, item) | {
                    "task": task.name,
                    "engine": engine,
                    "id": item.id,
                    "sample": sample,
                    "text": measured.answer.text,
                    "stopped": measured.answer.stopped,
                    "tokens": measured.answer.tokens,
                    "metrics": _values(findings.metrics, measured),
                }


def _asked_of(task: Asked, item: Item) -> Json:
    """What was asked; the run's own rows are in `data/` already."""
    if task.name == TEST:
        return {}
    wanted = item.reference or item.row.get("reference") or item.row.get("answer")
    return {"question": item.row["question"], "reference": None if wanted is None else str(wanted)}


def _values(metrics: Sequence[Metric], measured: Measured) -> dict[str, float]:
    values = ((metric.name, metric.value_of(measured)) for metric in metrics)
    return {name: round(value, 6) for name, value in values if value is not None}


def _speed(findings: Findings) -> Json:
    """Task -> engine -> figures, to a microsecond."""
    return {
        task.name: {
            engine: {key: round(value, 6) for key, value in found[task.name].speed.items()}
            for engine, found in findings.outcomes.items()
        }
        for task in findings.asked
    }
