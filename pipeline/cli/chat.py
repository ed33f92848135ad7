"""chat: talk to the exported file, or to Ollama."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.options import open_work, run_options


@click.command()
@run_options
@click.option("--ask", help="One question, then end.")
@click.option("--ollama", is_flag=True, help="Ask Ollama instead of the file.")
@click.option("--temperature", type=float, help="0 is greedy; default: serve.temperature.")
def chat(
    ask: str | None, ollama: bool, temperature: float | None, as_json: bool, **options: Any
) -> None:
    """Talk to the tuned model; its thinking is dimmed.

    Example: pipe chat -r demo --ask "Leo owns 42 pens. Leo finds 26 more. How many pens?"
    """
    from pipeline import workflow
    from pipeline.cli.show import say_json

    work = open_work(**options)
    heat = work.recipe.serve.temperature if temperature is None else temperature
    with workflow.talking(work, ollama=ollama, temperature=heat) as partner:
        if ask and as_json:
            parts = {"thinking": "", "answer": ""}
            for kind, piece in partner.stream([{"role": "user", "content": ask}]):
                parts[kind] += piece
            return say_json({kind: text.strip() for kind, text in parts.items()})
        if ask:
            return _turn(partner, [{"role": "user", "content": ask}])
        _loop(partner)


def _loop(partner: Any) -> None:
    click.echo("Ask; /new forgets, Ctrl-D ends.")
    messages: list[Any] = []
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            return click.echo()
        if text == "/new":
            messages = []
        elif text:
            messages.append({"role": "user", "content": text})
            _turn(partner, messages)


def _turn(partner: Any, messages: list[Any]) -> None:
    """Stream one reply and add its answer to the conversation."""
    answer = ""
    for kind, piece in partner.stream(messages):
        click.secho(piece, dim=kind == "thinking", nl=False)
        answer += piece if kind == "answer" else ""
    click.echo()
    messages.append({"role": "assistant", "content": answer.strip()})
