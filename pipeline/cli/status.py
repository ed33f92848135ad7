"""status: what is there, what is stale, what is next."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.options import for_this_run, open_work, run_options

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
    from pipeline.run.studies import study_states

    work = open_work(**options)
    run, found, studies = work.run, workflow.status(work), study_states(work.run)
    first = next((stage for stage, state in found.items() if state != "done"), None)
    command = first and (made_again(first) if found[first] == "changed" else MADE_BY[first])
    following = for_this_run(command) if command else None
    if as_json:
        states = {study: standing.state for study, standing in studies.items()}
        return say_json({"run": run.name, "stages": found, "studies": states, "next": following})
    click.echo(f"run {run.root}")
    for stage, state in found.items():
        click.echo(f"  {stage:7} {click.style(state, fg=_COLORS[state])}")
    for study, standing in studies.items():
        told = click.style(standing.state, fg=_COLORS[standing.state])
        again = for_this_run(standing.command)
        why = f": {standing.reason.rstrip('.')}. Again: {again}" if standing.reason else ""
        click.echo(f"  {study:7} {told}{why}")
    if following:
        click.echo(f"next: {following}")
