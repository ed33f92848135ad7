"""The conversation in a terminal: questions, commands, and what Ctrl-C means."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.prompt import read_question
from pipeline.cli.screen import Screen, harmless
from pipeline.cli.transcript import Exchange, Transcript, load
from pipeline.errors import PipeError

if TYPE_CHECKING:
    from pipeline.engines.talk import Ending, Manner, Partner, Remark

COMMANDS = {
    "/think": "on | off      think before the answer, or answer directly",
    "/show": "              print the thinking in full",
    "/fold": "              print one line for the thinking",
    "/last": "              the thinking of the last reply",
    "/again": "              ask the last question once more",
    "/system": "TEXT          set the system text; without TEXT there is none",
    "/new": "              forget the conversation",
    "/save": "FILE          write it as .md or .json; /save! replaces a file",
    "/load": "FILE          go on with one saved as .json",
    "/stats": "              speed, and how full the context is",
    "/help": "              this list",
    "/quit": "              leave, as Ctrl-D does",
}
_HELP = (
    'A line that ends in \\ goes on in the next; """ begins and ends a longer text.\n'
    "Ctrl-C stops a reply; a second one leaves."
)


class Stopped(KeyboardInterrupt):
    """The user has stopped a reply."""


class Leave(KeyboardInterrupt):
    """The user does not wait for a reply to stop."""


class Terminal:
    """Reads questions and commands until the user leaves; `read` gives a line after a prompt."""

    def __init__(
        self, partner: Partner, manner: Manner, system: str, read: Callable[[str], str]
    ) -> None:
        self._partner, self._manner, self._read = partner, manner, read
        self._transcript = Transcript(system)
        self._folded = False
        self._unanswered, self._thought = "", ""
        """The last question, while it has no reply that was kept; the last thinking."""
        self._ending: Ending | None = None
        self._replies, self._remarked = 0, set[str]()

    def run(self) -> None:
        """Returns when the user leaves: /quit, Ctrl-D, or Ctrl-C twice in a row."""
        self._greet()
        impatient = False
        while True:
            try:
                text = read_question(self._read)
                if text.startswith("/"):
                    if not self._command(text):
                        return
                elif text.strip():
                    self._reply(text.strip())
                    click.echo()
                impatient = False
            except (EOFError, Leave):
                return click.echo()
            except Stopped:
                impatient = True
            except KeyboardInterrupt:
                if impatient:
                    return click.echo()
                impatient = True
                click.secho("\nCtrl-C again, or Ctrl-D, leaves.", dim=True)

    def _greet(self) -> None:
        context = f", {self._partner.n_ctx:,} tokens of context" if self._partner.n_ctx else ""
        self._say(f"{self._partner.name}{context}. /help lists the commands.")

    def _command(self, text: str) -> bool:
        """False leaves."""
        word, _, rest = text.strip().partition(" ")
        rest = rest.strip()
        if word == "/quit":
            return False
        if word not in COMMANDS and word != "/save!":
            self._say(f"There is no {word}; /help lists what there is. A space before it asks it.")
            return True
        try:
            getattr(self, f"_{word[1:].removesuffix('!')}")(rest, word)
        except PipeError as error:
            self._complain(error)
        return True

    def _think(self, rest: str, _: str) -> None:
        if rest in ("on", "off"):
            self._manner = replace(self._manner, thinking=rest == "on")
        self._say(f"Thinking is {'on' if self._manner.thinking else 'off'}.")

    def _show(self, _: str, __: str) -> None:
        self._folded = False
        self._say("Thinking is printed in full.")

    def _fold(self, _: str, __: str) -> None:
        self._folded = True
        self._say("Thinking is folded into one line; /last shows it.")

    def _last(self, _: str, __: str) -> None:
        click.secho(harmless(self._thought) or "The last reply had no thinking.", dim=True)

    def _again(self, _: str, __: str) -> None:
        exchanges = self._transcript.exchanges
        if self._unanswered:
            return self._reply(self._unanswered)
        if not exchanges:
            return self._say("Nothing was asked yet.")
        last = exchanges.pop()
        try:
            self._reply(last.question)
        finally:
            if self._unanswered:
                self._unanswered = ""
                exchanges.append(last)
                self._say("The earlier reply stays.")

    def _system(self, rest: str, _: str) -> None:
        self._transcript.system = rest
        self._say("The system text is set." if rest else "There is no system text now.")

    def _new(self, _: str, __: str) -> None:
        self._begin(Transcript(self._transcript.system))
        self._say("A new conversation.")

    def _save(self, rest: str, word: str) -> None:
        if not rest:
            return self._say("Say where: /save FILE.md or /save FILE.json")
        path = _path(rest)
        self._transcript.save(path, self._partner.name, overwrite=word.endswith("!"))
        self._say(f"{path} written: {len(self._transcript.exchanges)} exchanges.")

    def _load(self, rest: str, _: str) -> None:
        if not rest:
            return self._say("Say what: /load FILE.json")
        self._begin(load(_path(rest)))
        self._say(
            f"{len(self._transcript.exchanges)} exchanges loaded; the next goes on from them."
        )

    def _begin(self, transcript: Transcript) -> None:
        """Go on from another conversation."""
        self._transcript, self._unanswered, self._ending = transcript, "", None
        self._thought = transcript.exchanges[-1].thinking if transcript.exchanges else ""
        self._remarked.clear()

    def _stats(self, _: str, __: str) -> None:
        if self._ending is None:
            return self._say("Nothing was answered yet.")
        for line in stats(self._ending, self._partner.n_ctx):
            click.echo(line)
        click.echo(f"conversation   {len(self._transcript.exchanges)} exchanges")

    def _help(self, _: str, __: str) -> None:
        for name, text in COMMANDS.items():
            click.echo(f"  {name:8} {text}")
        click.echo(_HELP)

    def _reply(self, question: str) -> None:
        """Stream one reply. Raises Stopped after a Ctrl-C, Leave after a second."""
        from pipeline.engines.talk import Ending, Piece, Remark

        said = {"thinking": "", "answer": ""}
        screen, ending, stopped = Screen(folded=self._folded), None, False
        manner = replace(self._manner, seed=self._manner.seed + self._replies)
        self._unanswered, self._replies = question, self._replies + 1
        try:
            with _stoppable(self._partner):
                for event in self._partner.stream(self._transcript.asking(question), manner):
                    if isinstance(event, Remark):
                        self._remark(event)
                    elif isinstance(event, Piece):
                        said[event.part] += event.text
                        screen.show(event.part, event.text, event.tokens)
                    else:
                        ending = event
        except Stopped:
            stopped = True
        except PipeError as error:
            screen.end()
            self._thought = said["thinking"]
            return self._complain(error, " The question is not kept; /again asks it once more.")
        screen.end()
        if ending and ending.reply:
            said = {"thinking": ending.reply.thinking, "answer": ending.reply.answer}
        self._thought = said["thinking"]
        self._ending = ending or self._ending
        self._keep(Exchange(question, said["answer"], said["thinking"]), ending)
        if stopped or (isinstance(ending, Ending) and ending.reason == "interrupted"):
            raise Stopped

    def _keep(self, exchange: Exchange, ending: Ending | None) -> None:
        """Put the exchange into the conversation, unless it has no answer."""
        stopped = ending is None or ending.reason == "interrupted"
        if ending and ending.reason == "length":
            self._say(cut_off(ending, self._manner.max_new_tokens))
        if not exchange.answer:
            how = "Stopped before the answer" if stopped else "The reply holds no answer"
            return self._say(f"{how}: not kept. /again asks once more.")
        self._transcript.exchanges.append(exchange)
        self._unanswered = ""
        if stopped:
            self._say("Stopped; what came is kept.")

    def _remark(self, remark: Remark) -> None:
        if remark.kind not in self._remarked:
            self._remarked.add(remark.kind)
            click.secho(harmless(remark.text), fg="yellow")

    def _say(self, text: str) -> None:
        click.secho(harmless(text), dim=True)

    def _complain(self, error: PipeError, more: str = "") -> None:
        click.echo(f"{click.style('pipe:', fg='red')} {harmless(error.message)}{more}")
        if error.hint:
            click.echo(harmless(error.hint))


def _path(typed: str) -> Path:
    """`~` is the home. Raises PipeError where there is none."""
    try:
        return Path(typed).expanduser()
    except RuntimeError:
        raise PipeError(f"{typed} names no home folder.", "Write the whole path.") from None


def cut_off(ending: Ending, limit: int | None) -> str:
    """Why a reply has no end."""
    if limit is not None and ending.tokens >= limit:
        return f"Cut off after {ending.tokens:,} tokens: --max-tokens."
    if not ending.prompt_tokens:
        return f"Cut off after {ending.tokens:,} tokens."
    return f"Cut off after {ending.tokens:,} tokens: the context is full."


def stats(ending: Ending, n_ctx: int | None) -> list[str]:
    """The last reply's figures, a line each; without the context where the partner told nothing."""
    speed = f", then {ending.tokens_per_s:,.1f} tokens/s" if ending.tokens_per_s else ""
    first = f": the first after {ending.first_token_s:.2f} s" if ending.first_token_s else ""
    lines = [f"last reply     {ending.tokens:,} tokens in {ending.seconds:.2f} s{first}{speed}"]
    if not ending.prompt_tokens:
        return lines
    used = ending.prompt_tokens + ending.tokens
    of = f" of {n_ctx:,} tokens ({100 * used / n_ctx:.0f}%)" if n_ctx else " tokens"
    return [
        *lines,
        f"context        {used:,}{of}: {ending.prompt_tokens:,} prompt, {ending.tokens:,} reply",
    ]


@contextmanager
def _stoppable(partner: Partner) -> Iterator[None]:
    """The first Ctrl-C ends the reply, the second raises Leave."""
    pressed = 0

    def interrupt(*_: object) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 1:
            raise Leave
        if not partner.stop():
            raise Stopped

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
