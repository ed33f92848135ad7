"""The command line: read options, call one function, show the result."""

from pipeline.cli.app import main

__all__ = ["main"]
