"""Any server that speaks OpenAI's chat completions, such as vLLM or llama-server."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event

import httpx

from pipeline.chat import ChatFormat, Conversation, neutral_conversation
from pipeline.engines.completion import Completion, Decoding
from pipeline.engines.ollama_http import Json, Patience
from pipeline.engines.remote import Arriving, in_order
from pipeline.engines.streams import BROKEN, bounded, is_loopback, lines
from pipeline.errors import PipeError, ServerFailed

_BUSY = (408, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed; llama-server says 503 while it loads."""
_TRIES = 6
_FIRST_PAUSE_S = 0.5
"""Doubled with each try: 15.5 s in all, where the server asks for nothing else."""
_LONGEST_PAUSE_S = 60.0
_CHECK = "Check eval.endpoint in the recipe, and the server's own log."
_KEY = "Put the key into the environment variable that eval.endpoint.key_env names."


class EndpointEngine:
    """Replies of a model behind an OpenAI-compatible URL, `batch_size` at once, but at most 16.

    `url` ends before `/chat/completions`. `key` is sent to that URL alone and never shown; a
    loopback URL is asked without a proxy. Raises PipeError for a key that no header can hold.
    """

    name = "endpoint"

    def __init__(
        self,
        url: str,
        model: str,
        format: ChatFormat,
        *,
        key: str | None = None,
        batch_size: int = 1,
        patience: Patience | None = None,
    ) -> None:
        self.url, self.model, self.format = url.rstrip("/"), model, format
        self._batch_size = batch_size
        self._key = (key or "").strip()
        self._patience = patience or Patience()
        self._pause_s = _FIRST_PAUSE_S
        if not (self._key.isascii() and self._key.isprintable()):
            raise PipeError(f"The key for {self.url} holds signs that no HTTP header can.", _CHECK)
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else None,
            trust_env=not _is_loopback(self.url),
            timeout=httpx.Timeout(
                self._patience.quick, connect=self._patience.connect, read=self._patience.slow
            ),
            limits=httpx.Limits(max_connections=None),
        )

    def answers(
        self, conversations: Sequence[Conversation], decoding: Decoding, *, thinking: bool = True
    ) -> Iterator[Completion]:
        """Replies in order; each has a seed of its own, the first `decoding.seed`.

        Sampling has the temperature and top_p asked for, and whatever else the server adds. No
        thinking is asked for by `chat_template_kwargs`, as vLLM, SGLang and llama-server have it.
        Raises PipeError for a prefill, for which there is no common way, and ServerFailed for a
        server that refuses, goes away, or is still busy after all tries.
        """
        bodies = [
            self._body(conversation, decoding, place, thinking)
            for place, conversation in enumerate(conversations)
        ]
        yield from in_order(
            lambda place, _, stop: self._answer(bodies[place], stop),
            conversations,
            self._batch_size,
        )

    def memory_bytes(self) -> int | None:
        return None

    def close(self) -> None:
        self._client.close()

    def _body(
        self, conversation: Conversation, decoding: Decoding, place: int, thinking: bool
    ) -> Json:
        if conversation and conversation[-1]["role"] == "assistant":
            raise PipeError(
                "An endpoint cannot be asked to go on with a reply: servers differ in how.",
                "Ask the GGUF or Ollama instead.",
            )
        body: Json = {
            "model": self.model,
            "messages": neutral_conversation(conversation, self.format),
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if decoding.temperature > 0:
            body |= {"top_p": decoding.top_p, "seed": decoding.seed + place}
        if not thinking:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        return body

    def _answer(self, body: Json, stop: Event) -> Completion:
        """One reply. A connection that breaks is tried again too: asking changes nothing there."""
        for attempt in range(_TRIES):
            arriving = Arriving(self.format)
            last = attempt == _TRIES - 1
            pause = self._pause_s * 2**attempt
            try:
                with closing(self._sent(body)) as response:
                    if response.status_code not in _BUSY or last:
                        return self._read(response, arriving, stop)
                    pause = _asked_pause(response.headers.get("Retry-After"), pause)
            except httpx.TransportError as error:
                if last or not isinstance(error, BROKEN):
                    raise self._unreachable(error) from None
            if stop.wait(min(pause, _LONGEST_PAUSE_S)):
                break
        return arriving.completion(tokens=0, stopped=False)

    def _sent(self, body: Json) -> httpx.Response:
        request = self._client.build_request("POST", f"{self.url}/chat/completions", json=body)
        return self._client.send(request, stream=True)

    def _read(self, response: httpx.Response, arriving: Arriving, stop: Event) -> Completion:
        tokens, reason = None, ""
        for event in self._events(response, stop):
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            for choice in event.get("choices") or ():
                said = choice.get("delta") or choice.get("message") or {}
                thought = said.get("reasoning_content") or said.get("reasoning")
                arriving.add("thinking", str(thought or ""))
                arriving.add("content", str(said.get("content") or ""))
                reason = choice.get("finish_reason") or reason
        if not reason and not stop.is_set():
            raise httpx.RemoteProtocolError("it ended in the middle of a reply")
        return arriving.completion(tokens=tokens, stopped=reason == "stop")

    def _events(self, response: httpx.Response, stop: Event) -> Iterator[Json]:
        """The stream's JSON objects, up to `stop`; a server that does not stream sends one."""
        status, chunks = response.status_code, bounded(response, self._patience.total)
        kind = response.headers.get("Content-Type", "")
        if not response.is_success or not kind.startswith("text/event-stream"):
            yield self._accepted(status, b"".join(chunks))
            return
        for line in lines(chunks):
            name, _, value = line.partition(b":")
            if stop.is_set() or value.strip() == b"[DONE]":
                return
            if name in (b"data", b"error"):  # llama-server's errors have a field of their own
                yield self._accepted(status, value)

    def _accepted(self, status: int, said: bytes) -> Json:
        """The JSON object. Raises ServerFailed with the server's own words, the key left out."""
        try:
            values = json.loads(said)
        except ValueError:
            values = None
        values = values if isinstance(values, dict) else {}
        if 200 <= status < 300 and values.get("choices") is not None:
            return values
        words = values.get("error") or values.get("message") or values.get("detail")
        if isinstance(words, dict):
            words = words.get("message")
        text = str(words or said[:300].decode(errors="replace").strip() or f"HTTP {status}")
        if self._key:
            text = text.replace(self._key, "[the key]")
        key = status in (401, 403)
        raise ServerFailed(f"The endpoint {self.url} refused: {text}", _KEY if key else _CHECK)

    def _unreachable(self, error: httpx.TransportError) -> ServerFailed:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            said = f"No server answers at {self.url}."
        elif isinstance(error, httpx.TimeoutException):
            said = f"The endpoint {self.url} stopped answering."
        else:
            said = f"The connection to {self.url} broke: {error}"
        return ServerFailed(said, _CHECK)


def _asked_pause(retry_after: str | None, otherwise: float) -> float:
    """Seconds that a Retry-After header asks for: a number, or an HTTP date (RFC 9110, 10.2.3)."""
    try:
        return max(0.0, float(retry_after or ""))
    except ValueError:
        pass
    try:
        then = parsedate_to_datetime(retry_after or "")
    except ValueError:
        return otherwise
    return max(0.0, (then.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _is_loopback(url: str) -> bool:
    """Raises PipeError for what is no URL."""
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL:
        raise PipeError(
            f"eval.endpoint.url is no URL: {url}", "As http://127.0.0.1:8000/v1"
        ) from None
    return is_loopback(host)
