"""A child process for code that may crash, patch its libraries or hold memory.

Requests and answers are JSON lines. For a request the child writes any number of messages, then
one {"result"} or {"error", "hint"}.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.errors import NativeCrash, PipeError

Message = dict[str, Any]
Send = Callable[[Message], None]
Operation = Callable[[Message, Send], Any]


class Child:
    """Runs `python -m module`; requests go one at a time. `hint` is shown when it dies.

    `launcher` are the arguments of Python that start the module in several processes, as
    ("-m", "torch.distributed.run", ...): the first of them answers.
    """

    def __init__(
        self,
        module: str,
        *,
        hint: str,
        environment: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        self._name, self._hint = module.rsplit(".", 1)[-1].removesuffix("_worker"), hint
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            # -P: a torch.py in the user's folder is not what is meant
            [sys.executable, "-P", *launcher, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **(environment or {})},
            text=True,
            encoding="utf-8",
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, operation: str, **arguments: Any) -> Any:
        """The result of one request. Raises PipeError for an error, NativeCrash for a death."""
        *_, last = self.stream(operation, **arguments)
        return last["result"]

    def stream(self, operation: str, **arguments: Any) -> Iterator[Message]:
        """The messages of one request, the result last."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"op": operation, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._crash(operation) from None
        for line in self._process.stdout:
            if not line.endswith("\n"):  # it was killed in the middle of a message
                break
            message = json.loads(line)
            if "error" in message:
                raise PipeError(message["error"], message["hint"] or self.log_tail())
            yield message
            if "result" in message:
                return
        raise self._crash(operation)

    def log_tail(self, lines: int = 3) -> str:
        """The last lines that the child wrote to standard error, where native code explains."""
        self._log.seek(0)
        text = self._log.read().decode("utf-8", "replace").strip()
        return "\n".join(text.splitlines()[-lines:])

    def close(self) -> None:
        """End the child: it stops when its input ends, and is killed when it does not."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it is dead already
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()

    def send_signal(self, number: signal.Signals) -> None:
        """Send the child a signal, if it still lives."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End the child now, whatever it is doing."""
        self._process.kill()
        self.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.kill()

    def _crash(self, operation: str) -> NativeCrash:
        code = self._process.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        text = f"The {self._name} process died with {cause} at {operation}.\n{self.log_tail()}"
        return NativeCrash(text.strip(), self._hint)


def serve(operations: Mapping[str, Operation]) -> None:
    """The child's side: answer requests until the input ends, which ends what runs too.

    Standard output is kept for the protocol; what libraries print goes to standard error.
    """
    send = open_protocol()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            send({"result": operations[request["op"]](request, send)})
        except PipeError as error:
            send({"error": error.message, "hint": error.hint})
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent must be told
            traceback.print_exc()
            send({"error": f"{type(error).__name__}: {error}", "hint": ""})


def open_protocol() -> Send:
    """Keep standard output for messages, one JSON line each, and die with the parent.

    What libraries print goes to standard error.
    """
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: Message) -> None:
        protocol.write(json.dumps(message) + "\n")
        protocol.flush()

    return send


def end_with_the_parent() -> None:
    """Wait for the death of `pipe`, which holds our input's other end, or of our own parent; die.

    For a thread: a parent that was killed cannot say so.
    """
    parent = os.getppid()
    waiting = select.poll()
    waiting.register(0, 0)  # nothing but the hang-up, which is always told
    while os.getppid() == parent and not waiting.poll(500):
        pass
    os._exit(1)
