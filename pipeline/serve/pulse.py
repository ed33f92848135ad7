"""Signs of life while a server works in silence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from time import monotonic

from pipeline.run import Emit, Progress

HEARTBEAT_S = 5.0


@contextmanager
def pulse(
    emit: Emit, task: str, unit: str, every: float = HEARTBEAT_S
) -> Iterator[Callable[[str], None]]:
    """Gives a function that says one more step's status; each silence is told every few seconds.

    Ollama reads a large file for minutes without a word, and loads it so before it answers.
    """
    steps: list[str] = []
    last, lock, ended = monotonic(), Lock(), Event()

    def say(figures: dict[str, str]) -> None:
        emit(Progress(task, len(steps), None, unit, figures))

    def step(status: str) -> None:
        nonlocal last
        with lock:
            last = monotonic()
            steps.append(status)
            say({"status": status})

    def beat() -> None:
        while not ended.wait(every):
            with lock:
                status = {"status": steps[-1]} if steps else {}
                say({**status, "silent": f"{monotonic() - last:.0f} s"})

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield step
    finally:
        ended.set()
        thread.join()
