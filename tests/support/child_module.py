"""A child that does what a test asks of it."""

import os
import signal
import sys
import time

from pipeline.child import Message, Send, serve
from pipeline.errors import PipeError


def count(request: Message, send: Send) -> str:
    for number in range(request["to"]):
        send({"number": number})
    sys.stdout.write("a library's own words\n")
    sys.stdout.flush()
    return "counted"


def refuse(_: Message, __: Send) -> None:
    raise PipeError("refused", "ask otherwise")


def fail(_: Message, __: Send) -> None:
    raise RuntimeError("native reasons")


def crash(_: Message, __: Send) -> None:
    sys.stderr.write("GGML_ASSERT(x) failed\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGABRT)


def wait(request: Message, send: Send) -> None:
    send({"pid": os.getpid(), "variable": os.environ.get("CHILD_TEST"), "warn": sys.warnoptions})
    time.sleep(request["seconds"])


if __name__ == "__main__":
    serve({"count": count, "refuse": refuse, "fail": fail, "crash": crash, "wait": wait})
