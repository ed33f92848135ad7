"""The training process with one thing going wrong, and warm: it stays for many trainings.

What goes wrong stands in a JSON file named by an environment variable, read at every request.
"""

import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from pipeline.child import Message, Send, serve
from pipeline.train import worker
from pipeline.train.job import Job

ORDERS = "PIPE_TEST_ORDERS"
"""The variable that names the file: {"job": its path, "faults": {name: argument}}."""


def train(message: Message, send: Send) -> Message:
    """As the real one, with the faults of the orders."""
    orders = json.loads(Path(os.environ[ORDERS]).read_text(encoding="utf-8"))
    os.environ[worker.JOB] = orders["job"]
    import unsloth  # noqa: F401 - first: it patches what the faults patch again

    with _faults(orders["faults"], Job.read(Path(orders["job"]))):
        return worker.train(message, send)


@contextmanager
def _faults(faults: dict[str, Any], job: Job) -> Iterator[None]:
    with ExitStack() as stack:
        for name, argument in faults.items():  # each over those before it
            stack.enter_context(_FAULTS[name](argument, job))
        yield


def _cut(step: int, _: Job) -> Any:
    """Ends before a step without a word to anybody: the disk is as after a SIGKILL there."""
    from pipeline.train.watch import Watch

    begin = Watch.on_step_begin

    def on_step_begin(self: Any, arguments: Any, state: Any, *rest: Any, **more: Any) -> Any:
        if state.global_step + 1 == step:
            raise RuntimeError("cut short")
        return begin(self, arguments, state, *rest, **more)

    return patch.object(Watch, "on_step_begin", on_step_begin)


def _stop(step: int, _: Job) -> Any:
    """SIGTERM in the middle of a step."""
    from pipeline.train.watch import Watch

    begin = Watch.on_step_begin

    def on_step_begin(self: Any, arguments: Any, state: Any, *rest: Any, **more: Any) -> Any:
        if state.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return begin(self, arguments, state, *rest, **more)

    return patch.object(Watch, "on_step_begin", on_step_begin)


def _no_result(_: None, __: Job) -> Any:
    """Ends after the last step, before its result is written."""

    def save_result(*_: Any) -> None:
        raise RuntimeError("cut short")

    return patch.object(worker, "save_result", save_result)


def _loss(change: Callable[[Any, Any, Any], Any]) -> Any:
    """Patches the loss of training steps: `change(trainer, inputs, loss)`."""
    from pipeline.train.trainer import Trainer

    original = Trainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        seen = SimpleNamespace(**inputs)  # TRL takes the labels out
        loss = original(self, model, inputs, *rest, **more)
        return change(self, seen, loss) if model.training else loss

    return patch.object(Trainer, "compute_loss", compute_loss)


def _nan(row: int, job: Job) -> Any:
    """The loss of a batch that holds this line of train.jsonl, known by its token ids."""
    wanted = _ids(job, row)

    def change(_: Any, inputs: Any, loss: Any) -> Any:
        return loss * float("nan") if _holds(inputs, wanted) else loss

    return _loss(change)


def _infinite_gradient(row: int, job: Job) -> Any:
    """Loss and gradients stay finite, the squares that make the norm do not."""
    wanted = _ids(job, row)

    def change(_: Any, inputs: Any, loss: Any) -> Any:
        if _holds(inputs, wanted):
            loss.register_hook(lambda gradient: gradient * 1e30)
        return loss

    return _loss(change)


def _memory(rows: int, _: Job) -> Any:
    """What CUDA says when a micro-batch has more rows than there is room for."""
    import torch

    def change(_: Any, inputs: Any, loss: Any) -> Any:
        if len(inputs.input_ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.9 GiB.")
        return loss

    return _loss(change)


def _seen(file: str, _: Job) -> Any:
    """Writes the token ids of every row of every step, without padding, as they are trained on."""

    def change(trainer: Any, inputs: Any, loss: Any) -> Any:
        with Path(file).open("a", encoding="utf-8") as log:
            for ids, mask in zip(inputs.input_ids, inputs.attention_mask, strict=True):
                row = [trainer.state.global_step + 1, ids[mask.bool()].tolist()]
                log.write(json.dumps(row) + "\n")
        return loss

    return _loss(change)


def _full_disk(step: int, _: Job) -> Any:
    """The system's own words at the checkpoint of a step."""
    from pipeline.train.trainer import Trainer

    write = Trainer._write

    def refuse(self: Any, folder: Path) -> None:
        write(self, folder)
        if self.state.global_step == step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "trace.json"))

    return patch.object(Trainer, "_write", refuse)


def _file_limit(argument: tuple[int, int], _: Job) -> Any:
    """At the checkpoint of a step no file may grow beyond some bytes: a real refusal to write."""
    from pipeline.train.trainer import Trainer

    step, size = argument
    write = Trainer._write

    def limited(self: Any, folder: Path) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if self.state.global_step == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            write(self, folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return patch.object(Trainer, "_write", limited)


def _little_room(free: int, _: Job) -> Any:
    usage = SimpleNamespace(total=10**12, used=10**12 - free, free=free)
    return patch.object(shutil, "disk_usage", lambda _: usage)


def _ids(job: Job, row: int) -> list[int]:
    from pipeline.train.rows import labelled

    return list(labelled(job.encoded["train"])[row]["input_ids"])


def _holds(inputs: Any, wanted: list[int]) -> bool:
    return any(row[: len(wanted)].tolist() == wanted for row in inputs.input_ids)


_FAULTS: dict[str, Callable[[Any, Job], Any]] = {
    "cut": _cut,
    "stop": _stop,
    "result": _no_result,
    "nan": _nan,
    "infinite_gradient": _infinite_gradient,
    "memory": _memory,
    "seen": _seen,
    "full_disk": _full_disk,
    "file_limit": _file_limit,
    "little_room": _little_room,
}


if __name__ == "__main__":
    serve({"train": train})
