"""What a library raises for work that this machine cannot do, and its own words for it."""

from pipeline.errors import PipeError

CANNOT = (PipeError, ImportError, NotImplementedError, RuntimeError, ValueError)
"""What libraries raise for a precision that this machine does not have."""


def words_of(error: Exception) -> str:
    """What was raised, in its own words; of a library's error its kind too."""
    said = (str(error).strip().splitlines() or [""])[0]
    return said if isinstance(error, PipeError) else f"{type(error).__name__}: {said}"
