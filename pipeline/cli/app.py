"""The `pipe` group: its commands, and how failures and interruptions are told."""

import signal
import sys
from types import TracebackType
from typing import Any

import click

from pipeline import __version__
from pipeline.cli import (
    chat,
    check,
    clean,
    compare,
    datasets,
    doctor,
    evaluate,
    log,
    plan,
    prepare,
    price,
    publish,
    quant,
    recipes,
    report,
    stages,
    status,
)
from pipeline.cli.options import with_options
from pipeline.cli.screen import harmless
from pipeline.errors import PipeError


class Failure(click.ClickException):
    """A PipeError as one paragraph on standard error."""

    def __init__(self, error: PipeError, options: str) -> None:
        super().__init__(harmless(error.message))
        self._error = error
        self._hint = harmless(with_options(error.hint, options))

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """1 where the work failed, 2 where it was asked wrongly."""
        return self._error.exit_code

    def show(self, file: Any = None) -> None:
        click.echo(f"{click.style('pipe:', fg='red')} {self.message}", err=True)
        if self._hint:
            click.echo(self._hint, err=True)


class Pipe(click.Group):
    """Commands in the order of the work, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.params.get("debug", False)
        if not debug:
            sys.excepthook = _say_briefly
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except PipeError as error:
            if debug:
                raise
            raise Failure(error, ctx.obj or "") from None
        except PermissionError as error:
            if debug:
                raise
            raise Failure(_not_allowed(error), "") from None
        except KeyboardInterrupt:
            click.echo("\npipe: interrupted; nothing half-made was published.", err=True)
            click.echo("The same command goes on where it was.", err=True)
            ctx.exit(130)


def _not_allowed(error: PermissionError) -> PipeError:
    """Of a folder or file that this user may not touch."""
    from pipeline.run.files import NOT_ALLOWED

    return PipeError(f"{error.filename}: {error.strerror}.", f"{NOT_ALLOWED.capitalize()}.")


def _say_briefly(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    """An error that nobody foresaw, without its traceback."""
    click.echo(f"pipe: {kind.__name__}: {error}\nSee where: pipe --debug ...", err=True)


@click.group(cls=Pipe, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pipe")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """From R1-distilled reasoning data to a Llama 3.2 that thinks, running in Ollama.

    \b
    pipe prepare && pipe train && pipe export
    ollama run my-model

    No GPU? `pipe run -r demo` does all of it on a small shipped model.
    """


for command in (
    prepare.prepare,
    stages.train,
    stages.export,
    stages.register,
    check.check,
    evaluate.evaluate,
    stages.run_all,
    status.status,
    report.report,
    log.log,
    publish.publish,
    clean.clean,
    chat.chat,
    plan.plan,
    compare.compare,
    quant.quant,
    price.price,
    recipes.init,
    recipes.recipes,
    datasets.datasets,
    doctor.doctor,
):
    main.add_command(command)
