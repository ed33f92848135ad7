"""Listens to the training processes: events to the screen and the trackers, signals to them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.child import Child, Message
from pipeline.errors import NativeCrash, PipeError
from pipeline.recipe.training import Train
from pipeline.run import Emit, Measured, Note, Run
from pipeline.train.job import NAME, Job
from pipeline.train.launch import Launch, open_child, rows_at_once
from pipeline.train.unfinished import FOLDER, Unfinished


def watched(job_file: Path, job: Job, work: Unfinished, launch: Launch) -> dict[str, Any]:
    """The result of one start of the processes. Raises PipeError for their error or death."""
    job = _shared_out(job_file, job, work, launch)
    if launch.nodes > 1:
        work.emit(Note(f"Waiting for {launch.nodes - 1} other nodes at {launch.rendezvous}."))
    work.emit(Note("Loading Unsloth and the base."))
    result = _result(job_file, job.train, work, launch)
    if result["status"] == "out_of_memory" and launch.nodes > 1:
        _stop_all_nodes(job, work, launch, result["reason"])
    return result


def joined(run: Run, train: Train, emit: Emit, launch: Launch) -> None:
    """Take part from another node in the training of `run` that node 0 leads, to its end.

    The job is read when all nodes have come together: node 0 has written it by then.
    Raises PipeError where they do not, and for what ends the processes here; KeyboardInterrupt
    when the training was stopped by a signal.
    """
    minutes = launch.patience // 60
    emit(Note(f"Waiting for node 0 at {launch.rendezvous}, {minutes} minutes at most."))
    work = Unfinished(run.root / FOLDER, emit)
    job_file = (work.folder / NAME).absolute()
    result = _result(job_file, train, work, launch)
    if result["status"] == "out_of_memory":
        _stop_all_nodes(Job.read(job_file), work, launch, result["reason"])
    if result["status"] == "stopped":
        raise KeyboardInterrupt
    emit(Note("The training has ended; node 0 publishes it."))


def _shared_out(job_file: Path, job: Job, work: Unfinished, launch: Launch) -> Job:
    """The job in micro-batches that the processes share evenly, written where they are others."""
    rows = rows_at_once(job.batch_size, job.global_batch, launch.processes)
    if rows == job.batch_size:
        return job
    work.emit(
        Note(
            f"{launch.processes} processes share a step of {job.global_batch} rows, "
            f"{rows} at a time instead of {job.batch_size}.",
            warning=True,
        )
    )
    job = replace(job, batch_size=rows)
    job.write(job_file)
    return job


def _stop_all_nodes(job: Job, work: Unfinished, launch: Launch, reason: str) -> None:
    """Raises PipeError; the next start takes smaller micro-batches. One node cannot begin alone."""
    if job.batch_size == 1:
        raise PipeError(
            f"Memory ran out on node {launch.node} with one row at a time: {reason}",
            "Use a smaller model.max_seq_length.",
        )
    work.keep_batch_size(job.batch_size // 2)
    raise PipeError(
        f"Memory ran out on node {launch.node} with {job.batch_size} rows at a time: {reason}",
        "Start it again on every node: it goes on from the last checkpoint with "
        f"{job.batch_size // 2} at a time.",
    )


def _result(job_file: Path, train: Train, work: Unfinished, launch: Launch) -> dict[str, Any]:
    with open_child(job_file, train, launch) as child, _signals_passed_on(child, work.emit):
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
def _signals_passed_on(child: Child, emit: Emit) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets the step end and a checkpoint be made; the next ends all.

    Raises KeyboardInterrupt where the processes died of it: they had not begun.
    """
    asked = False

    def pass_on(number: int, _: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        emit(Note("Stopping after this step, with a checkpoint. Once more stops at once."))
        child.send_signal(signal.SIGTERM)

    before = {s: signal.signal(s, pass_on) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except NativeCrash:
        if asked:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
