"""doctor: what this machine can do."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on standard output.")
def doctor(as_json: bool) -> None:
    """What this machine can do, what is missing, the cure.

    Example: pipe doctor
    """
    from pipeline import machine
    from pipeline.cli.show import say_json

    findings = machine.look()
    if as_json:
        values: list[dict[str, Any]] = [finding.as_json() for finding in findings]
        return say_json({"findings": values})
    for finding in findings:
        word, color = ("ok", "green") if finding.ok else ("missing", "red")
        click.echo(f"{click.style(f'{word:7}', fg=color)} {finding.what:12} {finding.found}")
        if finding.cure:
            click.echo(f"{'':21}{finding.cure}")
