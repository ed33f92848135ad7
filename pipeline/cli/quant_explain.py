"""quant explain: a row of weights by hand, in tables, as data or as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import open_work, run_options
from pipeline.cli.screen import harmless
from pipeline.cli.table import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

_SHOWN, _DRAWN = 8, 64


@click.command()
@run_options
@click.option("--tensor", metavar="NAME", help="Matrix of the base; default: a query projection.")
@click.option("--row", type=click.IntRange(0), default=0, show_default=True, help="Its row.")
@click.option("--columns", type=click.IntRange(1), metavar="N",
              help="Weights shown one by one; default 8, in a picture 64.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Draw it as a page (.html) or a picture (.svg).")  # fmt: skip
def explain(
    tensor: str | None,
    row: int,
    columns: int | None,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Quantize a row of the base by hand, step by step.

    \b
    Examples:
      pipe quant explain
      pipe quant explain --tensor model.layers.0.mlp.down_proj.weight --row 7
      pipe quant explain --out row.html
    """
    if out and out.suffix not in (".html", ".svg"):
        raise click.UsageError(f"--out draws .html or .svg, which {out.name} is not.")
    found = _explained(options, tensor, row, columns or (_DRAWN if out else _SHOWN))
    if out:
        from pipeline.report.explain import write_explained

        write_explained(out, found)
    if as_json:
        from pipeline.cli.show import say_json

        say_json(found)
    elif out:
        click.echo(str(out))
    else:
        _show(found)


def _explained(
    options: dict[str, Any], tensor: str | None, row: int, columns: int
) -> dict[str, Any]:
    from pipeline.study.explain.subject import choose
    from pipeline.study.explain.walk import explained

    base = open_work(**options).base()
    return explained(choose(base, tensor, row), columns)


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    rows, columns = found["shape"]
    of = f"row {found['row']} of {rows:,}, {columns:,} weights in {found['dtype']}"
    console.print(harmless(f"{found['model']}: {found['tensor']}, {of}"), soft_wrap=True)
    figures = f"largest {found['largest']:.4g}, RMS {found['rms']:.4g}"
    console.print(f"{figures}; the first {found['shown']:,} weights one by one:", soft_wrap=True)
    for method in found["methods"]:
        _show_method(console, method, found["weights"])
    console.print()
    _show_levels(console, found["methods"])
    console.print(_summary(found))
    for name, idea in found["ideas"].items():
        console.print(f"{name}: {idea}")


def _show_method(console: Console, method: dict[str, Any], weights: Sequence[float]) -> None:
    console.print(f"\n{method['label']}", style="bold")
    console.print(method["rule"], style="dim")
    console.print("; ".join(f"{each['name']} {each['value']:.6g}" for each in method["scales"]))
    levels = method["levels"]
    names = ["weight", "scaled", "code", *(["level"] if levels else []), "back", "error"]
    rows = [
        (
            f"{weight:+.5f}",
            f"{method['scaled'][number]:+.4f}",
            f"{method['codes'][number]}",
            *([f"{levels[number]:+.4f}"] if levels else []),
            f"{method['restored'][number]:+.5f}",
            f"{method['errors'][number]:+.5f}",
        )
        for number, weight in enumerate(weights)
    ]
    console.print(table(names, rows, left=()))


def _show_levels(console: Console, methods: Sequence[dict[str, Any]]) -> None:
    """The 16 levels, ascending, and how many weights of the row each of them got."""
    with_levels = [each for each in methods if each["used"] and each["method"] != "nf4-double"]
    names = [part for each in with_levels for part in (f"{each['label']} level", "code", "weights")]
    rows = [
        [
            part
            for each in used
            for part in (f"{each['level']:+.4f}", str(each["code"]), str(each["weights"]))
        ]
        for used in zip(*(each["used"] for each in with_levels), strict=True)
    ]
    console.print(table(names, rows, title="Levels, and the weights of the row on each", left=()))


def _summary(found: dict[str, Any]) -> Table:
    rows = [
        [each["label"], *_errors(each)] for each in found["methods"] if each["method"] != "q4_k"
    ]
    rows += [[f"GGUF {each['type']}", *_errors(each)] for each in found["gguf"]]
    columns = ("", "bits", "RMS", "of RMS", "largest")
    return table(columns, rows, title="Errors of the whole row")


def _errors(entry: dict[str, Any]) -> list[str]:
    if entry.get("reason"):
        return [f"{entry['bits']:.3f}", entry["reason"], "", ""]
    return [
        f"{entry['bits']:.3f}",
        f"{entry['rms_error']:.3g}",
        f"{entry['relative_error']:.2%}",
        f"{entry['max_error']:.3g}",
    ]
