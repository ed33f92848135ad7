"""Listens to the training processes: events to the screen and the trackers, signals to them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.child import Child, Message
from pipeline.run import Measured, Note
from pipeline.train.job import Job
from pipeline.train.launch import Launch, open_child
from pipeline.train.unfinished import Unfinished


def watched(job_file: Path, job: Job, work: Unfinished, launch: Launch) -> dict[str, Any]:
    """The result of one start of the processes. Raises PipeError for their error or death."""
    work.emit(Note("Loading Unsloth and the base."))
    with (
        open_child(job_file, job.train, launch) as child,
        _signals_passed_on(child, work),
    ):
        for message in child.stream("train"):
            if "result" in message:
                result: dict[str, Any] = message["result"]
                return result
            _tell(message, work)
    raise AssertionError("the child ended without a result")


def _tell(message: Message, work: Unfinished) -> None:
    if "sample" in message:
        sample = message["sample"]
        text = f"Step {sample['step']}, asked: {sample['question']}\n{sample['reply']}"
        return work.emit(Note(text))
    line, speed = message["measured"], message.get("speed", {})
    work.log(line, speed)
    numbers = {key: value for key, value in {**speed, **line}.items() if value is not None}
    step, steps = int(numbers.pop("step")), int(numbers.pop("steps"))
    return work.emit(Measured("train", step, steps, numbers))


@contextmanager
def _signals_passed_on(child: Child, work: Unfinished) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets the step end and a checkpoint be made; the next ends all."""
    asked = False

    def pass_on(number: int, _: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        work.emit(Note("Stopping after this step, with a checkpoint. Once more stops at once."))
        child.send_signal(signal.SIGTERM)

    before = {s: signal.signal(s, pass_on) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
