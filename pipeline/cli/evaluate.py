"""eval: the table before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import dry_run_option, force_option, open_work, run_options
from pipeline.cli.stage import preview
from pipeline.cli.table import brief_interval, draw, table

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.run import Run

_COLUMNS = (
    "engine",
    "exact\nmatch",
    "95%\ninterval",
    "well\nformed",
    "cut\noff",
    "perplex-\nity",
    "tokens",
    "tokens\nper s",
    "first\ntoken",
)
_NOT_TYPES = ("base", "adapter", "merged", "ollama", "endpoint")


@click.command("eval")
@run_options
@force_option
@dry_run_option
@click.option("--task", "tasks", multiple=True, metavar="NAME|FILE",
              help="test, gsm8k, math-500, a .jsonl or .yaml file; repeatable.")  # fmt: skip
@click.option("--engine", "engines", multiple=True, metavar="NAME",
              help="base, adapter, merged, a GGUF type, ollama, endpoint; repeatable.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="At most so many questions a task.")
@click.option("--samples", type=click.IntRange(1), help="Replies a question; pass@1 is their mean.")
@click.option("--temperature", type=click.FloatRange(0), help="0 is greedy; open-r1 takes 0.6.")
@click.option("--metric", "metric_files", multiple=True, metavar="FILE.py",
              type=click.Path(path_type=Path, dir_okay=False),
              help="Your own: def metric(row, reply) -> float; repeatable.")  # fmt: skip
def evaluate(
    force: bool,
    dry_run: bool,
    as_json: bool,
    metric_files: tuple[Path, ...],
    overrides: tuple[str, ...],
    **options: Any,
) -> None:
    """Ask every engine the test questions, before and after.

    An eval that was interrupted goes on where it was.

    \b
    Examples:
      pipe eval --limit 50
      pipe eval --task gsm8k --limit 200 --engine base --engine Q4_K_M
      pipe eval --task math-500 --samples 4 --temperature 0.6
    """
    from pipeline import workflow

    keys = ("tasks", "engines", "limit", "samples", "temperature")
    wishes = {key: options.pop(key) for key in keys}
    work = open_work(**options, overrides=(*overrides, *_wished(**wishes)), force=force)
    if dry_run:
        return preview(work, ["eval"], as_json)
    workflow.evaluate(work, metric_files)
    show_scores(work.run, as_json)


def _wished(tasks: tuple[str, ...], engines: tuple[str, ...], **figures: float | None) -> list[str]:
    """The options as recipe overrides."""
    wished: dict[str, Any] = {
        "tasks": list(tasks) or None,
        "engines": [_engine(name) for name in engines] or None,
        **figures,
    }
    asked = {key: value for key, value in wished.items() if value is not None}
    return [f"eval.{key}={json.dumps(value)}" for key, value in asked.items()]


def _engine(name: str) -> str:
    return name.lower() if name.lower() in _NOT_TYPES else name.upper()


def show_scores(run: Run, as_json: bool) -> None:
    """The tables of `pipe eval`, and what they say in a sentence."""
    from rich.console import Console

    from pipeline.evaluate import in_words, published

    results = published(run)
    if as_json:
        from pipeline.cli.show import say_json

        return say_json(results)
    console = Console()
    further = results["tasks"]
    tasks = [results, *further.values()]
    # speed.json has the tasks in the order of their names, and the leading one nowhere else
    names = [next((name for name in results["speed"] if name not in further), ""), *further]
    for name, task in zip(names, tasks, strict=True):
        title = f"{run.name}: {task['items']} questions" + (f" of {name}" if name else "")
        draw(_table(title, task, results["speed"].get(name, {}), results["method"]))
        if said := in_words(task, results["method"], results["deciding"]):
            console.print(said, highlight=False, soft_wrap=True)


def _table(title: str, task: dict[str, Any], speed: dict[str, Any], method: str | None) -> Table:
    from pipeline.engines.trained import shown

    rows = [
        (shown(name, method), *_cells(scores, speed.get(name, {})))
        for name, scores in task["engines"].items()
    ]
    return table(_COLUMNS, rows, title=title, whole=range(len(_COLUMNS)))


def _cells(scores: dict[str, Any], speed: dict[str, Any]) -> list[str]:
    match = scores.get("exact_match")
    return [
        f"{match['value']:.1%}" if match else "",
        brief_interval("exact_match", match) if match else "",
        _cell(scores.get("well_formed"), "{:.1%}"),
        _cell(scores.get("truncated"), "{:.1%}"),
        _cell(scores.get("perplexity"), "{:.4g}"),
        _cell(scores.get("reply_tokens"), "{:.0f}"),
        "{:.0f}".format(speed["tokens_per_s"]) if "tokens_per_s" in speed else "",
        "{:.0f} ms".format(1000 * speed["first_token_s"]) if "first_token_s" in speed else "",
    ]


def _cell(value: dict[str, float] | None, form: str) -> str:
    return form.format(value["value"]) if value else ""
