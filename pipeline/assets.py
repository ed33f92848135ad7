"""Where the shipped files are: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path

from pipeline.errors import PipeError

PREFIX = "builtin:"
_PACKAGE = Path(__file__).parent
_ROOTS = (_PACKAGE / "assets", _PACKAGE.parent)


def asset(relative: str) -> Path:
    """The path of a shipped file or folder, such as `modelfiles/Modelfile.jinja`.

    Raises PipeError when the installation lacks it.
    """
    for root in _ROOTS:
        if (path := root / relative).exists():
            return path
    raise PipeError(
        f"The shipped file {relative} is missing from this installation.",
        "Reinstall: pip install --force-reinstall r1pipe",
    )


def locate(reference: str) -> Path:
    """The path a recipe means: `builtin:NAME` is under the shipped `data/`, all else is a path."""
    if reference.startswith(PREFIX):
        return asset(f"data/{reference.removeprefix(PREFIX)}")
    return Path(reference).expanduser()
