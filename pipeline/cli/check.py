"""check: the gates, and what to do where one fails."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import for_this_run, open_work, run_options

if TYPE_CHECKING:
    from pipeline.check import Gate

_COLORS = {"passed": "green", "failed": "red", "not_run": "yellow"}
_TITLES = {
    "prompts": "Prompts: the same text and tokens everywhere",
    "file": "The file",
    "precision": "Merge and precision",
    "served": "The served model",
    "identity": "What Ollama runs",
}
_INDENT = 37
_WIDEST = 160


@click.command()
@run_options
@click.option("--require-all", is_flag=True, help="A gate that could not run is a failure.")
@click.option(
    "--gguf",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Check any GGUF file instead of a run.",
)
@click.option("--ollama", metavar="NAME", help="Check any model in Ollama instead of a run.")
def check(
    require_all: bool, gguf: Path | None, ollama: str | None, as_json: bool, **options: Any
) -> None:
    """Prove that what Ollama serves is what was trained.

    Each gate passes, fails, or says why it could not run; exits 1 where one fails.

    Example: pipe check --require-all
    """
    from dataclasses import asdict

    from pipeline.cli.show import say_json

    gates = _gates(gguf, ollama, options)
    if as_json:
        say_json({"gates": [asdict(gate) for gate in gates]})
    else:
        _show(gates)
    bad = {"failed", "not_run"} if require_all else {"failed"}
    if any(gate.status in bad for gate in gates):
        raise click.exceptions.Exit(1)


def _gates(gguf: Path | None, ollama: str | None, options: dict[str, Any]) -> list[Gate]:
    """Of the run, or of the one thing that stands in its place."""
    from pipeline import workflow
    from pipeline.cli.show import drawing

    if gguf is None and ollama is None:
        return workflow.check(open_work(**options))
    if gguf is not None and ollama is not None:
        raise click.UsageError("--gguf and --ollama each name what to check: give one.")
    if any(options.values()):
        raise click.UsageError("--gguf and --ollama need no run: leave -r, --run and --set out.")
    if gguf is not None:
        return workflow.check_file(gguf, drawing())
    return workflow.check_model(str(ollama), drawing())


def _show(gates: list[Gate]) -> None:
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    group = ""
    for gate in gates:
        if gate.group != group:
            group = gate.group
            click.secho(_TITLES[group], bold=True)
        _show_gate(gate, width)
    counts = {status: sum(gate.status == status for gate in gates) for status in _COLORS}
    said = [f"{count} {status.replace('_', ' ')}" for status, count in counts.items() if count]
    click.echo(f"{len(gates)} gates: {', '.join(said)}")


def _show_gate(gate: Gate, width: int) -> None:
    """Status, name and what was compared; of a gate that did not pass, why and the cure below."""
    status = click.style(f"{gate.status:8}", fg=_COLORS[gate.status])
    lines = [gate.compared, gate.reason, for_this_run(gate.hint)]
    first, *rest = [part for line in lines if line for part in _wrapped(line, width)] or [""]
    click.echo(f"  {status} {gate.name:25} {first}")
    for line in rest:
        click.echo(f"{'':{_INDENT}}{line}")


def _wrapped(text: str, width: int) -> list[str]:
    """Lines beside the names, or a long way beyond a narrow terminal's edge: never under 40."""
    room = max(40, width - _INDENT)
    return textwrap.wrap(text, room, break_on_hyphens=False) or [""]
