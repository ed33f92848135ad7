"""chat: talk to the exported file, or to Ollama; in a terminal, in a script, in a browser."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import Command, open_work, run_options

if TYPE_CHECKING:
    from pipeline.engines.talk import Manner
    from pipeline.workflow import Work

_WHOM = (
    click.option("--ollama", metavar="[NAME]", is_flag=False, flag_value="",
                 help="Ask this run's model in Ollama, or any model there."),
    click.option("--gguf", type=click.Path(dir_okay=False, path_type=Path),
                 help="Any GGUF file; needs no run."),
    click.option("--type", "quant", metavar="TYPE", help="Which exported file, such as Q4_K_M."),
)  # fmt: skip
_HOW = (
    click.option("--system", default="", metavar="TEXT", help="The system text."),
    click.option("--no-think", is_flag=True, help="Answer directly."),
    click.option("--temperature", metavar="T", type=click.FloatRange(min=0),
                 help="0 is greedy; default: serve.temperature."),
    click.option("--seed", metavar="N", type=click.IntRange(min=0), help="Default: the recipe's."),
    click.option("--max-tokens", metavar="N", type=click.IntRange(min=1),
                 help="Longest reply; default: what the context holds."),
)  # fmt: skip
_WHERE = (
    click.option("--ask", metavar="TEXT", help="One question, then end; `-` is standard input."),
    click.option("--thinking", is_flag=True,
                 help="With --ask: the thinking on standard output, too."),
    click.option("--web", is_flag=True, help="In the browser: base and tuned side by side."),
    click.option("--port", metavar="N", type=click.IntRange(0, 65535),
                 help="With --web; 0 is any free one."),
    click.option("--no-base", is_flag=True, help="With --web: the tuned model alone."),
    click.option("--open", "open_page", is_flag=True, help="With --web: open the page."),
)  # fmt: skip


def _options(*groups: tuple[Callable[[Command], Command], ...]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


@click.command()
@run_options
@_options(_WHERE, _WHOM, _HOW)
def chat(as_json: bool, **options: Any) -> None:
    """Talk to the tuned model; its thinking is dimmed.

    In a terminal /help lists the commands. What you type is kept in .chat_history in the run's
    folder, or without a run in $XDG_STATE_HOME/pipe/chat_history, readable by you alone.

    With --ask the answer goes to standard output and the thinking to standard error. It exits 1
    when the reply was cut off by --max-tokens or by the end of the context. --json gives
    thinking, answer, stopped, tokens, seconds and first_token_s.

    --web serves this machine only. The untuned base becomes a GGUF in the run's .base/, once.

    \b
    Examples:
      pipe chat --ask "How many is 12 and 30?"
      pipe chat --ollama --no-think
      pipe chat --web --open
    """
    if options["ask"] == "-":
        from pipeline.cli.prompt import lenient_input

        options["ask"] = lenient_input().read()
    _check(as_json, options)
    names = ("ask", "thinking", "system", "web", "port", "no_base", "open_page")
    given = {name: options.pop(name) for name in names}
    whom = [options.pop(name) for name in ("ollama", "gguf", "quant")]
    drawing = [options.pop(name) for name in ("temperature", "seed", "max_tokens", "no_think")]
    work = open_work(**options)

    from pipeline.workflow.talks import Wish, talking

    wish, manner = Wish(*whom), _manner(work, *drawing)
    if given["web"]:
        return _serve(work, wish, manner, given)
    with talking(work, wish) as partner:
        if given["ask"] is None:
            return _converse(work, partner, manner, given["system"])
        from pipeline.cli.asking import ask

        together = given["thinking"]
        ask(partner, given["ask"], given["system"], manner, as_json=as_json, together=together)


def _check(as_json: bool, given: dict[str, Any]) -> None:
    """Raises UsageError for options that do not go together."""
    ask, gguf, ollama = given["ask"], given["gguf"], given["ollama"]
    wrong = {
        "--gguf and --ollama name two models.": gguf is not None and ollama is not None,
        "--type is one of a run's files.": given["quant"] and (gguf is not None or ollama),
        "--ask and --web are two ways to ask.": ask is not None and given["web"],
        "--ask has no question.": ask is not None and not ask.strip(),
        "--ask and --system take text: this is not in the terminal's encoding.": not (
            _is_text(ask or "") and _is_text(given["system"])
        ),
        "--json and --thinking go with --ask.": ask is None and (as_json or given["thinking"]),
        "--port, --no-base and --open go with --web.": not given["web"]
        and (given["port"] is not None or given["no_base"] or given["open_page"]),
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise click.UsageError(message)


def _is_text(text: str) -> bool:
    """False for bytes of the command line that were no text, which Python keeps as surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _manner(
    work: Work, temperature: float | None, seed: int | None, max_tokens: int | None, no_think: bool
) -> Manner:
    from pipeline.engines.talk import Manner

    given = work.recipe.seed if seed is None else seed
    return Manner(temperature, given, max_tokens, thinking=not no_think)


def _converse(work: Work, partner: Any, manner: Manner, system: str) -> None:
    import signal

    from pipeline.cli.prompt import history_file, typed
    from pipeline.cli.terminal import COMMANDS, Terminal

    # Ctrl-C stops a reply here; being terminated still ends the command, and its child with it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with typed(history_file(work.run.root), COMMANDS) as read:
        Terminal(partner, manner, system, read).run()


def _serve(work: Work, wish: Any, manner: Manner, given: dict[str, Any]) -> None:
    """The page until Ctrl-C."""
    import webbrowser

    from pipeline.web import Page, listen, serve
    from pipeline.workflow.talks import side_by_side

    with listen(given["port"]) as socket:
        url = f"http://127.0.0.1:{socket.getsockname()[1]}/"
        with side_by_side(work, wish, base=not given["no_base"]) as sides:
            click.echo(f"{url}  Ctrl-C ends.")
            if given["open_page"]:
                webbrowser.open(url)
            temperature = manner.temperature
            if temperature is None:
                temperature = work.recipe.serve.temperature
            page = Page(sides, replace(manner, temperature=temperature), given["system"])
            serve(page, socket)
    click.echo("Ended.")
