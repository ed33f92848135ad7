"""The process that runs torchrun or accelerate, and says in one sentence which process failed.

Started by `pipeline.train.launch` as `python -m pipeline.train.launcher torchrun OPTIONS`. Standard
output is the training's protocol, which its processes inherit, as they do standard input: it ends
with `pipe`, and so do they all.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.child import end_with_the_parent
from pipeline.train.together import ENDED, STOPS

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

AGAIN = (
    "Go on from the last checkpoint: pipe train, with --nproc as before or without. "
    "A process that the system killed for its memory stands in dmesg."
)
MEETING = (
    "Start all nodes within half an hour, with the same --nnodes and --rendezvous, each with its "
    "own --node-rank; HOST is node 0, PORT is free there and open to the others."
)
_LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL")
"""Words of the errors that a process meets when another one is gone."""


def main() -> None:
    """Run the launcher named first with the options after it; exit 1 where a process fails."""
    name, *options = sys.argv[1:]
    protocol, sys.stdout = sys.stdout, sys.stderr
    for watch in (_pass_on_stops, end_with_the_parent):
        threading.Thread(target=watch, daemon=True).start()
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        _run(name, options)
    except ChildFailedError as error:
        said, hint = blamed(error.failures), AGAIN
    except (DistError, ConnectionError) as error:
        said, hint = f"The nodes did not meet: {str(error).splitlines()[0]}", MEETING
    else:
        return
    protocol.write(json.dumps({"error": said, "hint": hint}) + "\n")
    protocol.flush()
    sys.exit(1)


def _run(name: str, options: list[str]) -> None:
    if name == "torchrun":
        torchrun: Any = import_module("torch.distributed.run")
        torchrun.run(torchrun.parse_args(options))
    else:
        accelerate: Any = import_module("accelerate.commands.launch")
        accelerate.launch_command(accelerate.launch_command_parser().parse_args(options))


def _pass_on_stops() -> None:
    """Hand a request to stop to the processes; with none yet, there is nothing to finish.

    As SIGINT: torchrun itself sends SIGTERM when one of them has failed.
    """
    import psutil

    while True:
        signal.sigwait(STOPS)
        processes = psutil.Process().children()
        if not processes:
            os._exit(1)
        for process in processes:
            process.send_signal(signal.SIGINT)


def blamed(failures: "Mapping[int, ProcessFailure]") -> str:
    """Which process failed first and by what, as one sentence.

    A failed one brings the others down: their lost connections are not the cause.
    """
    rank = min(failures, key=lambda rank: (_kind(failures[rank]), failures[rank].timestamp))
    failure = failures[rank]
    words = _words(failure) or f"exit code {failure.exitcode}"
    if failure.exitcode < 0:
        words = f"it was killed by {signal.Signals(-failure.exitcode).name}"
    return f"Process {rank} of the training failed: {words}."


def _kind(failure: "ProcessFailure") -> int:
    """How likely it is the cause: the smaller, the likelier."""
    words = _words(failure)
    if failure.exitcode == ENDED:
        return 4
    if any(each in words for each in _LOST):
        return 3
    # NCCL's watchdog aborts those that wait for another
    if failure.exitcode == -signal.SIGABRT:
        return 2
    return 0 if failure.exitcode < 0 else 1


def _words(failure: "ProcessFailure") -> str:
    """The first line of the exception, where one was recorded."""
    message: Any = failure.message
    text = str(message.get("message", "")) if isinstance(message, dict) else ""
    return text.strip().partition("\n")[0].rstrip(".")


if __name__ == "__main__":
    main()
