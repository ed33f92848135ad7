"""Chunks to parts on every core, results in the chunks' order."""

import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

from pipeline.chat import Backend, ChatFormat, Encoder, fastest
from pipeline.cores import cores
from pipeline.data.read.chunks import Chunk
from pipeline.data.work.parts import Part, write_part
from pipeline.data.work.worker import Task, Worker
from pipeline.errors import PipeError

ALONE = 16
"""So few chunks are done in this process: starting others would take longer."""


@dataclass(frozen=True)
class Setup:
    """What every process encodes with."""

    tokenizer_json: Path
    format: ChatFormat
    backend: Backend = "tokenizers"

    def encoder(self) -> Encoder:
        return Encoder(self.tokenizer_json, self.format, backend=self.backend)

    def proven(self) -> "Setup":
        """With the fastest encoder that is proven to give the same ids."""
        return replace(self, backend=fastest(self.tokenizer_json).backend)


@dataclass(frozen=True)
class Job:
    task: Task
    chunk: Chunk
    folder: Path
    """Where the part goes."""


class Desk:
    """One process's encoder and workers."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._workers: dict[int, Worker] = {}

    def do(self, job: Job) -> Part:
        """Work on the chunk and write its part."""
        number = job.task.number
        if number not in self._workers:
            self._workers[number] = Worker(self._encoder, job.task)
        worked = self._workers[number].work(job.chunk)
        return write_part(job.folder, job.chunk.number, worked, job.chunk.after)


def parts_of(jobs: Iterable[Job], setup: Setup) -> Iterator[tuple[int, Part]]:
    """The number of each job's task and its part, in order.

    Raises PipeError where a process is killed.
    """
    rest = iter(jobs)
    first = list(islice(rest, ALONE + 1))
    few = len(first) <= ALONE
    if few or cores() == 1:
        desk = Desk((setup if few else setup.proven()).encoder())
        yield from ((job.task.number, desk.do(job)) for job in chain(first, rest))
        return
    try:
        yield from _pooled(chain(first, rest), setup.proven())
    except BrokenProcessPool:
        raise PipeError(
            "A process that prepared rows ended, most likely killed for want of memory.",
            "Free memory and run it again: it goes on where it was. What it said stands above.",
        ) from None


def _pooled(jobs: Iterator[Job], setup: Setup) -> Iterator[tuple[int, Part]]:
    workers = cores()
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (setup,))
    waiting: deque[tuple[int, Future[Part]]] = deque()
    try:
        for job in jobs:
            waiting.append((job.task.number, pool.submit(_do, job)))
            if len(waiting) > 2 * workers:
                yield _finished(waiting.popleft())
        yield from map(_finished, waiting)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(waiting: tuple[int, Future[Part]]) -> tuple[int, Part]:
    number, future = waiting
    return number, future.result()


def _begin(setup: Setup) -> None:
    """Make a worker process ready: one thread, no Ctrl-C of its own, gone when its parent is."""
    global _desk  # noqa: PLW0603 - a pool's process keeps what its jobs share
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _desk = Desk(setup.encoder())


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _do(job: Job) -> Part:
    return _desk.do(job)


_desk: Desk
