"""What every stage's command shows: what it would do, and what it left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.cli.options import for_this_run


def finished(manifest: Any, as_json: bool, folder: Path) -> None:
    """The stage's files, or its manifest as JSON."""
    from dataclasses import asdict

    from pipeline.cli.show import say_json

    if as_json:
        return say_json(asdict(manifest))
    click.echo(f"{folder}: {len(manifest.outputs)} files")
    for name, entry in manifest.outputs.items():
        click.echo(f"  {entry.bytes:>14,}  {name}")


def say_next(command: str) -> None:
    """The command that follows, for the recipe and run that were asked for."""
    click.echo(f"Next: {for_this_run(command)}", err=True)


def preview(work: Any, stages: list[Any], as_json: bool) -> None:
    """What each stage would read and obey, and how it stands now."""
    from pipeline import workflow
    from pipeline.cli.show import say_json
    from pipeline.recipe import written

    preview = workflow.preview(work, stages)
    if as_json:
        return say_json(preview)
    click.echo(f"recipe {work.recipe.name}, run {work.run.root}")
    for stage, facts in preview.items():
        click.echo(f"{stage}: now {facts['status']}; reads {', '.join(facts['reads'])}")
        for key, value in facts["settings"].items():
            click.echo(f"    {key}: {written(value)}")
