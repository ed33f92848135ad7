"""compare: variants of a recipe side by side, and the best of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import (
    dry_run_option,
    for_this_run,
    force_option,
    open_work,
    run_options,
    yes_option,
)
from pipeline.cli.table import brief_interval, draw, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from pipeline.study.compare import Comparison
    from pipeline.workflow import Work

_COLUMNS = ("95%\ninterval", "memory\nGB", "saved", "time", "speed\nup", "eval\nloss",
            "general\nloss")  # fmt: skip


@click.command()
@run_options
@force_option
@dry_run_option
@yes_option
@click.option("--vary", multiple=True, metavar="KEY=A,B,C",
              help="Values of a recipe key, as lora.r=8,16; repeatable.")  # fmt: skip
@click.option("--stages", type=click.Choice(["train,eval", "train"]), default="train,eval",
              show_default=True, help="What is done with each variant.")  # fmt: skip
@click.option("--export", is_flag=True, help="Also write each variant's GGUFs, and ask them.")
@click.option("--markdown", is_flag=True, help="The table as Markdown, ready to paste.")
def compare(
    dry_run: bool,
    as_json: bool,
    markdown: bool,
    vary: tuple[str, ...],
    stages: Any,
    export: bool,
    **options: Any,
) -> None:
    """Train variants of a recipe side by side; name the best.

    What was interrupted goes on where it was. Without --vary: the last comparison again.

    \b
    Examples:
      pipe compare --vary lora.r=8,16,32
      pipe compare --vary train.method=full,lora,qlora --markdown
      pipe compare --vary lora.r=8,16 --vary learning_rate=1e-4,2e-4 --dry-run
    """
    from pipeline.cli.show import say_json
    from pipeline.study.compare import compare as study
    from pipeline.study.compare import planned

    work = open_work(**options)
    if not vary:
        results = _last(work)
        _warn(work, results)
    else:
        plan = planned(work, vary, stages=tuple(stages.split(",")), export=export)
        if dry_run:
            return _preview(plan, as_json)
        results = study(plan)
    if as_json:
        return say_json(results)
    _show(results, work.run.root / "compare", markdown)


def _last(work: Work) -> dict[str, Any]:
    """What the run's last comparison found. Raises UsageError where there is none."""
    from pipeline.study.compare import last

    found = last(work.run)
    if found is None:
        raise click.UsageError(
            f"Name what varies, such as --vary lora.r=8,16; {work.run.root} has no comparison yet."
        )
    return found


def _warn(work: Work, results: dict[str, Any]) -> None:
    """Say where what is shown is no longer of what is there."""
    from pipeline.run.studies import study_command, study_doubt

    if doubt := study_doubt(work.run, results):
        again = for_this_run(study_command("compare", results))
        click.secho(f"Stale: {doubt}. Again: {again}", fg="yellow", err=True)


def _preview(plan: Comparison, as_json: bool) -> None:
    """The variants, those refused with their reason, and about how long they take."""
    from pipeline.cli.show import say_json
    from pipeline.report.words import duration
    from pipeline.study.compare import expected_seconds

    seconds = expected_seconds(plan)
    if as_json:
        variants = [
            {"label": each.label, "settings": dict(each.settings), "reason": each.reason}
            for each in plan.variants
        ]
        return say_json({"variants": variants, "expected_seconds": seconds})
    click.echo(f"recipe {plan.work.recipe.name}, {len(plan.variants)} variants in {plan.folder}")
    for each in plan.variants:
        click.echo(f"  {each.label}" + (f": refused: {each.reason}" if each.reason else ""))
    if seconds is None:
        click.echo("time: not known, none was timed yet")
    else:
        click.echo(f"time: about {duration(seconds)}, by those that were timed")


def _show(results: dict[str, Any], folder: Path, markdown: bool) -> None:
    from rich.console import Console

    from pipeline.report.compare_words import left_out, optimal, reason
    from pipeline.report.compare_words import markdown as as_markdown

    if markdown:
        return click.echo(as_markdown(results), nl=False)
    draw(_table(results))
    console = Console()
    for row in left_out(results):
        console.print(f"{row['label']} {row['status']}: {reason(row)}", highlight=False)
    for said in filter(None, (optimal(results), results["rule"])):
        console.print(said, highlight=False, soft_wrap=True)
    click.echo(str(folder / "compare.html"))


def _table(results: dict[str, Any]) -> Table:
    """Without the columns of which no variant has a figure."""
    from pipeline.report.compare_words import deciding, done, title

    score = deciding(results)
    columns = ("variant", f"{score.label}\nafter", *_COLUMNS)
    rows = [_cells(row, results) for row in done(results)]
    used = [
        place for place in range(len(columns)) if any(row[place] not in ("", "–") for row in rows)
    ]
    cells = ([row[place] for place in used] for row in rows)
    heads = [columns[place] for place in used]
    return table(heads, cells, title=title(results), whole=range(len(used)))


def _cells(row: Mapping[str, Any], results: dict[str, Any]) -> list[str]:
    from pipeline.report import compare_words as told
    from pipeline.report.words import metric

    after = row["after"]
    mark = " *" if row["label"] == results["best"] else ""
    return [
        f"{row['label']}{mark}",
        metric(row["metric"]).shown(after) if after else "",
        brief_interval(row["metric"], after) if after else "",
        told.gigabytes(row),
        told.saved(row),
        told.took(row),
        told.speed_up(row),
        told.loss(row["eval_loss"]),
        told.general(row).replace(" ", ""),
    ]
