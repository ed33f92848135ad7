"""`pipe` in this process."""

from click.testing import CliRunner

from pipeline.cli import main


def pipe(*arguments: str) -> tuple[int, str]:
    """Exit code, and all that was said."""
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.output
