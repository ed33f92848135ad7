"""A model in Ollama, asked as any client asks it."""

from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any

from pipeline.chat import ChatFormat, Conversation, neutral_conversation
from pipeline.engines.completion import Completion, Decoding
from pipeline.engines.ollama import REPEAT_LIMIT, TOO_LONG, OllamaServer
from pipeline.engines.ollama_http import Connection, Json
from pipeline.engines.remote import AT_ONCE, Arriving, in_order
from pipeline.errors import OllamaRefused, OllamaUnreachable


class OllamaEngine:
    """Replies of a served model, `batch_size` of them asked for at a time, but at most 16.

    The server decides how many it answers at once (OLLAMA_NUM_PARALLEL): the others wait, and their
    time to the first token with them. What is sent spells no control token, as the server would
    parse it.
    """

    name = "ollama"

    def __init__(
        self, server: OllamaServer, model: str, format: ChatFormat, *, batch_size: int = 1
    ) -> None:
        self.server, self.model, self.format = server, model, format
        self._batch_size = min(batch_size, AT_ONCE)
        self._connection = Connection(server.host, server.patience)

    def answers(
        self, conversations: Sequence[Conversation], decoding: Decoding, *, thinking: bool = True
    ) -> Iterator[Completion]:
        """Replies in order; each has a seed of its own, the first `decoding.seed`.

        A prefill is gone on with as it stands: the text is what was generated, nothing parsed.
        Raises OllamaUnreachable or OllamaRefused, but for a reply that the server ends because it
        repeats itself: that one did not stop. Nor did one that a full context cut off, even before
        its first token, as in llama.cpp.
        """

        def ask(place: int, conversation: Conversation, stop: Event) -> Completion:
            return self._answer(self._body(conversation, decoding, place, thinking), stop)

        yield from in_order(ask, conversations, self._batch_size)

    def memory_bytes(self) -> int | None:
        """As /api/ps has it: in GPU memory where any of it is there, else in all."""
        try:
            running = self.server.running()
        except (OllamaUnreachable, OllamaRefused):
            return None
        sizes = (m for m in running if _same_model(str(m.get("name", "")), self.model))
        sized = next(sizes, {})
        return int(sized.get("size_vram") or sized.get("size") or 0) or None

    def close(self) -> None:
        """The server keeps the model for its other clients."""

    def _body(
        self, conversation: Conversation, decoding: Decoding, place: int, thinking: bool
    ) -> Json:
        sent = neutral_conversation(conversation, self.format)
        prefilled = bool(sent) and sent[-1]["role"] == "assistant"
        return {
            "model": self.model,
            "messages": sent,
            # the server takes a prefilled reply that thinks for one that does not
            "think": thinking and not prefilled,
            "options": _options(decoding, place),
            # no beginning is dropped, of a prompt or in the middle of a reply
            "truncate": False,
            "shift": False,
        }

    def _answer(self, body: Json, stop: Event) -> Completion:
        arriving = Arriving(self.format)
        last: Json = {}
        try:
            for last in self._connection.events("/api/chat", body, self._batch_size):
                message = last.get("message") or {}
                arriving.add("thinking", str(message.get("thinking") or ""))
                arriving.add("content", str(message.get("content") or ""))
                if stop.is_set():
                    break
        except OllamaRefused as refusal:
            if TOO_LONG.search(refusal.message):
                last = {"eval_count": 0}
            elif REPEAT_LIMIT not in refusal.message:
                raise
        return arriving.completion(
            tokens=last.get("eval_count"), stopped=last.get("done_reason") == "stop"
        )


def _options(decoding: Decoding, place: int) -> dict[str, Any]:
    """Nothing but what `decoding` says: the model's own sampling is no part of the protocol."""
    options = {
        "num_predict": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "repeat_penalty": 1.0,
    }
    if decoding.temperature == 0:
        return options
    drawn = {"top_p": decoding.top_p, "top_k": 0, "min_p": 0.0, "seed": decoding.seed + place}
    return options | drawn


def _same_model(found: str, asked: str) -> bool:
    """Ollama ignores letters' case, and a name without a tag has the tag `latest`."""
    tag = "" if ":" in asked.rpartition("/")[2] else ":latest"
    return found.lower() == f"{asked}{tag}".lower()
