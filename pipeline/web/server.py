"""Serves the page on loopback until Ctrl-C."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import uvicorn

from pipeline.errors import PipeError
from pipeline.web.app import Page, application

LOOPBACK = "127.0.0.1"
_PORT = 8321
_GOODBYE_S = 2
"""Seconds that replies under way have to end."""


@contextmanager
def listen(port: int | None = None) -> Iterator[socket.socket]:
    """A listening socket on loopback; None takes 8321, or any port if that one is in use.

    Raises PipeError where the port asked for cannot be had.
    """
    wanted = _PORT if port is None else port
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, wanted))
        except OSError as error:
            if port is not None or error.errno != errno.EADDRINUSE:
                raise PipeError(
                    f"Port {wanted} of {LOOPBACK} cannot be had: {error.strerror}.",
                    "Take any free one: pipe chat --web --port 0",
                ) from None
            listener.bind((LOOPBACK, 0))
        listener.listen()
        yield listener


def serve(page: Page, listener: socket.socket) -> None:
    """Answer until Ctrl-C, which ends the replies under way, too."""
    config = uvicorn.Config(
        application(page),
        access_log=False,
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GOODBYE_S,
        ws="none",
    )
    with suppress(KeyboardInterrupt):  # uvicorn passes the signal on when all is closed
        _Server(config, page).run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, page: Page) -> None:
        super().__init__(config)
        self._page = page

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        for partner in self._page.sides.values():
            partner.stop()
        super().handle_exit(sig, frame)
