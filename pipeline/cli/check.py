"""check: the gates, and what to do where one fails."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.options import open_work, run_options


@click.command()
@run_options
@click.option("--require-all", is_flag=True, help="A gate that could not run is a failure.")
def check(require_all: bool, as_json: bool, **options: Any) -> None:
    """Hold Transformers, llama.cpp and Ollama against each other.

    Exits 1 when a gate fails. Example: pipe check --require-all
    """
    from dataclasses import asdict

    from pipeline import workflow
    from pipeline.cli.show import say_json

    gates = workflow.check(open_work(**options))
    if as_json:
        say_json({"gates": [asdict(gate) for gate in gates]})
    else:
        for gate in gates:
            _show_gate(gate)
    bad = {"failed", "not_run"} if require_all else {"failed"}
    if any(gate.status in bad for gate in gates):
        raise click.exceptions.Exit(1)


def _show_gate(gate: Any) -> None:
    color = {"passed": "green", "failed": "red", "not_run": "yellow"}[gate.status]
    click.echo(f"{click.style(f'{gate.status:8}', fg=color)} {gate.name:27} {gate.compared}")
    for line in (gate.reason, gate.hint):
        if line:
            click.echo(f"{'':37}{line}")
