"""One `pipe` at a time in a run's folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import RunLocked


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel drops it when the process dies, however it dies.

    Raises RunLocked at once when another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunLocked(
                f"Process {file.read().strip() or 'unknown'} is working in {folder}.",
                "Wait for it, or use another run: --run NAME",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
