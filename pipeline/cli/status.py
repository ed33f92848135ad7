"""status: what is there, what is stale, what is next."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.options import open_work, run_options, with_options

_COLORS = {"done": "green", "missing": None, "stale": "yellow", "changed": "red"}


@click.command()
@run_options
def status(as_json: bool, **options: Any) -> None:
    """What is done, stale or missing; the next command.

    Example: pipe status -r demo --json
    """
    from pipeline import workflow
    from pipeline.cli.show import say_json
    from pipeline.run.folder import MADE_BY, made_again

    work = open_work(**options)
    run, found = work.run, workflow.status(work)
    if as_json:
        return say_json({"run": run.name, "stages": found})
    click.echo(f"run {run.root}")
    for stage, state in found.items():
        click.echo(f"  {stage:7} {click.style(state, fg=_COLORS[state])}")
    undone = (stage for stage, state in found.items() if state != "done")
    if (first := next(undone, None)) is not None:
        command = made_again(first) if found[first] == "changed" else MADE_BY[first]
        given: str = click.get_current_context().find_root().obj
        click.echo(with_options(f"next: {command}", given))
