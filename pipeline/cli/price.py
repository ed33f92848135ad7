"""price: the base at each precision against the tuned model; which tokenizers hold a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import open_work, run_options
from pipeline.cli.table import draw, table

if TYPE_CHECKING:
    from rich.table import Table

_FIGURES = ("mae", "rmsle", "hit_rate", "within_20_percent", "r2")


@click.group(invoke_without_command=True)
@run_options
@click.option("--top", default=10, show_default=True, type=click.IntRange(1),
              help="Number tokens that the weighted price is the mean of.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="At most so many products.")
def price(top: int, limit: int | None, as_json: bool, **options: Any) -> None:
    """Ask base and tuned model for the held-out prices.

    The base in 16, 8 and 4 bits, the tuned model, and the training rows' median as a guess: how far
    off what they say is, and the mean of their likeliest next numbers, weighted by probability.

    Example: pipe price --limit 100
    """
    if click.get_current_context().invoked_subcommand:
        return
    from pipeline.study.price import measure

    work = open_work(**options)
    found = measure(work, top, limit)
    if as_json:
        from pipeline.cli.show import say_json

        return say_json(found)
    _show(f"{work.run.name}: {found['items']} products", found)


@price.command("tokenizers")
@click.argument("names", nargs=-1, metavar="[NAME|FOLDER]...")
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on standard output.")
def tokenizers(names: tuple[str, ...], as_json: bool) -> None:
    """Tell which tokenizers hold 0 to 999 in one token.

    Of hub ids, of which tokenizer.json alone is fetched, and of local folders; without any, of a
    Llama, a Qwen, a Gemma and two Phi.

    Example: pipe price tokenizers builtin:tiny-llama
    """
    from pipeline.cli.show import drawing, say_json
    from pipeline.study.price import study

    found = study(names, drawing())
    if as_json:
        return say_json(found)
    draw(_numbers_table(found["tokenizers"]))


def _numbers_table(rows: list[dict[str, Any]]) -> Table:
    heads = ("", "vocabulary", "0 to 999 in\none token", "all up to", "tokens\nat most")
    return table(heads, map(_numbers, rows), title="Whole numbers after “Price is $”")


def _numbers(row: Mapping[str, Any]) -> tuple[str, ...]:
    if row["reason"]:
        return (row["name"], "", "not read", "", "")
    up_to = "none" if row["up_to"] < 0 else str(row["up_to"])
    one_token = f"{row['one_token']:,}"
    return (row["name"], f"{row['vocabulary']:,}", one_token, up_to, str(row["most"]))


def _show(title: str, found: Mapping[str, Any]) -> None:
    from rich.console import Console

    from pipeline.report.words import metric

    constant = found["constant"]
    names = (*(metric(name).label for name in _FIGURES), "weighted\nMAE", "memory")
    heads = ("", *(name.replace(" ", "\n") for name in names))
    rows = [(f"always ${constant['value']:g}", *_cells(constant["said"]), "", "")]
    rows += [_measured(row) for row in found["rows"] if row["status"] == "measured"]
    draw(table(heads, rows, title=title))
    console = Console()
    for row in found["rows"]:
        for reason in filter(None, (row["reason"], row["weighted_reason"])):
            console.print(f"{row['label']}: {reason}", highlight=False, soft_wrap=True)


def _measured(row: Mapping[str, Any]) -> tuple[str, ...]:
    from pipeline.report.words import metric, size

    weighted = metric("mae").shown((row["weighted"] or {}).get("mae"))
    memory = size(row["memory_bytes"]) if row["memory_bytes"] else ""
    return (row["label"], *_cells(row["said"]), weighted, memory)


def _cells(figures: Mapping[str, Any]) -> list[str]:
    from pipeline.report.words import metric

    return [metric(name).shown(figures.get(name)) for name in _FIGURES]
