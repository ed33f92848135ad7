"""`python -m pipeline` is `pipe`."""

from pipeline.cli import main

main()
