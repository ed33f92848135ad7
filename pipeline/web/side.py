"""One partner of the page: questions wait for one another, and a reply ends with its reader."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import closing

import anyio

from pipeline.chat import Message
from pipeline.engines.talk import Event, Manner, Partner
from pipeline.errors import PipeError

Told = Event | PipeError
_AGAIN_S = 0.2


class Side:
    """A partner that one question at a time is put to."""

    def __init__(self, name: str, partner: Partner) -> None:
        self.name, self.partner = name, partner
        self._turn = asyncio.Lock()

    async def reply(
        self, conversation: Sequence[Message], manner: Manner
    ) -> AsyncGenerator[Told, None]:
        """What the partner says, in a thread of its own; an error is the last thing told.

        Closing the generator ends the partner's reply before the next question has its turn.
        """
        async with self._turn:
            told: asyncio.Queue[Told | None] = asyncio.Queue()
            left = threading.Event()
            loop = asyncio.get_running_loop()

            def tell(event: Told | None) -> None:
                loop.call_soon_threadsafe(told.put_nowait, event)

            spoken = loop.run_in_executor(None, self._speak, conversation, manner, tell, left)
            try:
                while (event := await told.get()) is not None:
                    yield event
                await spoken
            finally:
                left.set()
                with anyio.CancelScope(shield=True):
                    while not spoken.done():  # a reply that was just begun may have missed it
                        self.partner.stop()
                        await asyncio.wait([spoken], timeout=_AGAIN_S)

    def _speak(
        self,
        conversation: Sequence[Message],
        manner: Manner,
        tell: Callable[[Told | None], None],
        left: threading.Event,
    ) -> None:
        try:
            with closing(self.partner.stream(conversation, manner)) as events:
                for event in events:
                    tell(event)
                    if left.is_set():
                        return
        except PipeError as error:
            tell(error)
        finally:
            tell(None)
