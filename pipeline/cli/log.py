"""log: the experiment log of a run, in Markdown."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.options import open_work, run_options


@click.command()
@run_options
@click.option("--stdout", is_flag=True, help="Print the log instead of writing log.md.")
def log(stdout: bool, as_json: bool, **options: Any) -> None:
    """Write the experiment log of a run, in Markdown.

    A comparison and a quantization study of the run are part of it.

    \b
    Examples:
      pipe log
      pipe log --stdout | less
    """
    from pipeline.report.log import log_text, write_log

    if stdout and as_json:
        raise click.UsageError("--stdout prints the log, --json its path: give one.")
    run = open_work(**options).run
    said, gaps = log_text(run) if stdout else write_log(run)
    for gap in gaps:
        click.secho(gap.said, fg="yellow", err=True)
    if as_json:
        from pipeline.cli.show import say_json

        return say_json({"log": str(said)})
    click.echo(str(said), nl=not stdout)
