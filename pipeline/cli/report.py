"""report: one page of what a run did."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.options import open_work, run_options


@click.command()
@run_options
def report(as_json: bool, **options: Any) -> None:
    """Write report.html: scores, loss, gates, samples.

    Example: pipe report -r demo
    """
    from pipeline.cli.show import say_json
    from pipeline.report import write_report

    work = open_work(**options)
    path = write_report(work.recipe, work.run)
    return say_json({"report": str(path)}) if as_json else click.echo(str(path))
