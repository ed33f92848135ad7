"""What eval needs of engines behind HTTP: whole texts, no queue of our own, one kind of failure."""

import threading
from time import sleep

import pytest

from pipeline.chat import chat_format
from pipeline.engines.completion import Completion, Decoding
from pipeline.engines.endpoint import EndpointEngine
from pipeline.engines.remote import AT_ONCE, Arriving, in_order
from pipeline.errors import OllamaRefused, OllamaUnreachable, ServerFailed
from tests.support.ollama import free_port

FORMAT = chat_format("llama3.2-reasoning")


@pytest.mark.parametrize("part", ["thinking", "content"])
def test_a_sign_that_came_in_two_halves_is_whole_and_a_lone_half_is_replaced(part: str) -> None:
    arriving = Arriving(FORMAT)
    for piece in ("a", "\ud83d", "\ude00", "\ude00b", "\ud83d"):
        arriving.add(part, piece)
    text = arriving.completion(tokens=None, stopped=True).text
    assert "a\U0001f600\ufffdb\ufffd" in text
    text.encode()


def test_at_most_sixteen_requests_are_under_way() -> None:
    lock, under_way, most = threading.Lock(), 0, 0

    def ask(place: int, conversation: object, stop: threading.Event) -> Completion:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        sleep(0.02)
        with lock:
            under_way -= 1
        return Arriving(FORMAT).completion(tokens=place, stopped=True)

    replies = list(in_order(ask, [[]] * 40, 64))
    assert [reply.tokens for reply in replies] == list(range(40))
    assert most == AT_ONCE == 16


def test_servers_fail_in_one_way() -> None:
    assert issubclass(OllamaUnreachable, ServerFailed) and issubclass(OllamaRefused, ServerFailed)
    engine = EndpointEngine(f"http://127.0.0.1:{free_port()}/v1", "m", FORMAT)
    with pytest.raises(ServerFailed, match="No server answers"):
        list(engine.answers([[{"role": "user", "content": "Why?"}]], Decoding(1)))
    engine.close()
