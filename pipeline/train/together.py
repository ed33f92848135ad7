"""What each of several training processes does so that all stop, fail and end together."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from pipeline.child import Operation, open_protocol
from pipeline.errors import PipeError

JOB = "PIPE_TRAIN_JOB"
"""The variable that names the job's file."""
STOPS = (signal.SIGINT, signal.SIGTERM)
ENDED = 128 + signal.SIGTERM
"""Exit code of a process that its launcher ended."""
PATIENCE = timedelta(minutes=30)
"""How long the others wait while one saves or answers aloud; TrainingArguments' own ddp_timeout."""


def several() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def take_part(train: Operation) -> None:
    """Train beside the others: the first of all sends what it measures, the first of a node its
    result, each its own errors, and memory that ran out.

    What else is raised the launcher tells, which knows what failed first.
    """
    send = open_protocol()
    from torch.distributed.elastic.multiprocessing.errors import record

    first = os.environ["RANK"] == "0"
    try:
        result: Any = record(train)({}, send if first else lambda _: None)
    except PipeError as error:
        send({"error": error.message, "hint": error.hint})
        sys.exit(1)
    if os.environ["LOCAL_RANK"] == "0" or result["status"] == "out_of_memory":
        send({"result": result})


def check_gpus(device: str) -> None:
    """Raises PipeError where more processes were asked for than there are GPUs."""
    import torch

    asked, there = int(os.environ.get("LOCAL_WORLD_SIZE") or 1), torch.cuda.device_count()
    if device == "cuda" and asked > there:
        raise PipeError(
            f"{asked} processes were asked for and this machine has {there} GPUs.",
            f"One process for each: pipe train --nproc {there}",
        )


def meet(device: str) -> None:
    """Join the processes into torch's group, so that whoever asks how many there are is told.

    TRL's arguments would do it too, but later than the first question.
    """
    import torch

    if not several():
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "nccl" if device == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)


def wait_for_all() -> None:
    """Return when every process has come here; at once for one alone."""
    import torch

    if several() and torch.distributed.is_initialized():
        torch.distributed.barrier()


@contextmanager
def held_back(*numbers: signal.Signals) -> Iterator[None]:
    """Hold signals back in this thread, and in the processes that it starts, for good.

    Those have them held back in every thread, so that one alone can wait for them; numpy and torch
    start threads as soon as they are imported.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_for_stops(ask: Callable[[], None]) -> None:
    """Call `ask` for each Ctrl-C or SIGTERM; die of the launcher's own SIGTERM: another has failed.

    For a thread of a process started with STOPS held back: the main one may hang with the dead.
    """
    while True:
        told = signal.sigwaitinfo(STOPS)
        if told.si_signo == signal.SIGTERM and told.si_pid == os.getppid():
            os._exit(ENDED)
        ask()
