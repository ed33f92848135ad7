"""quant: what each precision costs one model, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import dry_run_option, force_option, open_work, run_options
from pipeline.cli.quant_explain import explain
from pipeline.cli.table import brief_interval, draw, table

if TYPE_CHECKING:
    from rich.table import Table

_COLUMNS = (
    "method",
    "weights",
    "bits a\nweight",
    "memory",
    "tokens\nper s",
    "perp-\nlexity",
    "KL\n(nats)",
    "same\ntop",
    "score",
    "95%\ninterval",
)


@click.group(invoke_without_command=True)
@run_options
@force_option
@dry_run_option
@click.option("--base", is_flag=True, help="Study the run's base instead of its tuned model.")
@click.option("--method", "methods", multiple=True, metavar="NAME",
              help="int8, llm-int8, nf4, nf4-dq, fp4, gptq, a GGUF type; repeatable.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="At most so many questions and replies.")
def quant(force: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Measure what each precision costs one model.

    Memory, speed, perplexity, KL divergence, score and each layer's error, by method. A study that
    was interrupted goes on where it was.

    \b
    Examples:
      pipe quant --limit 50
      pipe quant --method nf4 --method q4_k_m
      pipe quant explain
    """
    if click.get_current_context().invoked_subcommand:
        return
    from pipeline.cli.show import say_json
    from pipeline.study.quant import Wish, planned, quantize

    asked = {key: options.pop(key) for key in ("methods", "limit")}
    wish = Wish("base" if options.pop("base") else "tuned", **asked)
    work = open_work(**options, force=force)
    if dry_run:
        return _preview(planned(work, wish), as_json)
    results = quantize(work, wish)
    if as_json:
        return say_json(results)
    _show(results, work.run.root / "quant")


quant.add_command(explain)


def _preview(rows: list[dict[str, Any]], as_json: bool) -> None:
    from pipeline.cli.show import say_json

    if as_json:
        return say_json(rows)
    for row in rows:
        click.echo(f"{row['label']}: {row['status']}")


def _show(results: dict[str, Any], folder: Path) -> None:
    """The table, what was not run, and which row is the best."""
    from rich.console import Console

    draw(_table(results))
    for row in results["rows"]:
        if row["reason"]:
            click.secho(f"{row['label']} is not run: {row['reason']}", fg="yellow")
    Console().print(results["says"], highlight=False, soft_wrap=True)
    click.echo(f"Written: {folder / 'quant.html'}", err=True)


def _table(results: dict[str, Any]) -> Table:
    title = f"{results['recipe']}, {results['model']}: {results['questions']} questions"
    rows = results["rows"]
    best = [number for number, row in enumerate(rows) if row["method"] == results["best"]]
    return table(_COLUMNS, map(_cells, rows), title=title, whole=range(len(_COLUMNS)), bold=best)


def _cells(row: dict[str, Any]) -> list[str]:
    from pipeline.report.words import metric, size

    if row["status"] != "measured":
        return [row["method"], "not run", *[""] * (len(_COLUMNS) - 2)]
    kl, score = row["kl"], row["score"]
    kind = metric(score["metric"]) if score else None
    speed, perplexity, memory = (
        row[key] for key in ("tokens_per_second", "perplexity", "memory_bytes")
    )
    return [
        row["method"],
        size(row["weights_bytes"]),
        f"{row['bits_per_weight']:.2f}",
        "" if memory is None else size(memory),
        "" if speed is None else f"{speed:.0f}",
        "" if perplexity is None else f"{perplexity:.4g}",
        f"{kl['mean']:.1e}" if kl else "",
        f"{kl['same_top']:.1%}" if kl else "",
        kind.shown(score) if kind else "",
        brief_interval(score["metric"], score) if score else "",
    ]
