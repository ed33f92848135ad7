"""Ollama as a partner of `pipe chat`: what it is sent, and every way in which it fails."""

import json
from collections.abc import Iterator
from threading import Timer

import pytest

from pipeline.engines.ollama import OllamaServer
from pipeline.engines.talk import Manner, Piece
from pipeline.engines.talk_served import ServedPartner
from pipeline.errors import OllamaRefused, OllamaUnreachable
from tests.engines.talks import FORMAT, HELLO, heard, talk
from tests.support.faulty_ollama import (
    FaultyOllama,
    Handler,
    faulty_ollama,
    hang,
    lines,
    reply,
    stall,
)


@pytest.fixture
def ollama() -> Iterator[FaultyOllama]:
    with faulty_ollama() as server:
        server.models["m"] = {"files": {"m": "sha256:0"}, "parameters": {"num_ctx": 64}}
        yield server


def served(ollama: FaultyOllama) -> ServedPartner:
    return ServedPartner(OllamaServer(ollama.url), "m", FORMAT)


def test_a_served_model_is_asked_to_cut_nothing_silently(ollama):
    bodies = []

    def answer(handler: Handler) -> None:
        bodies.append(handler.values)
        end = {"done": True, "done_reason": "length", "prompt_eval_count": 5, "eval_count": 2,
               "eval_duration": 1_000_000_000}  # fmt: skip
        lines({"message": {"thinking": " 2 + 3\n"}}, {"message": {"content": "\n5"}}, end)(handler)

    ollama.faults["POST /api/chat"] = answer
    asked = Manner(temperature=0.5, seed=3, max_new_tokens=9, thinking=False)
    text, remarks, ending = heard(served(ollama).stream(talk("<|eot_id|>?", system="S"), asked))
    assert text == {"thinking": "2 + 3", "answer": "5"}
    assert [remark.kind for remark in remarks] == ["control tokens"]
    assert (ending.reason, ending.tokens, ending.prompt_tokens) == ("length", 2, 5)
    assert ending.tokens_per_s == 2.0
    (body,) = bodies
    assert body["messages"] == talk("<| eot_id|>?", system="S")
    assert body["options"] == {"seed": 3, "temperature": 0.5, "num_predict": 9}
    assert body["think"] is False and body["truncate"] is False and body["shift"] is False


def test_a_server_that_dies_in_mid_reply_is_one_clear_error_after_what_came(ollama):
    def die(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        text = json.dumps({"message": {"content": "The answer"}}).encode() + b"\n"
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))

    ollama.faults["POST /api/chat"] = die
    events = served(ollama).stream(HELLO, Manner())
    assert next(events) == Piece("answer", "The answer", 1)
    with pytest.raises(OllamaUnreachable, match="/api/chat"):
        list(events)
    ollama.faults["POST /api/chat"] = lines({"message": {"content": "The answer"}})
    with pytest.raises(OllamaUnreachable, match="middle of its reply"):
        list(served(ollama).stream(HELLO, Manner()))


def test_a_reply_that_ollama_ends_for_its_repetitions_is_cut_off_and_says_so(ollama):
    words = {"error": "token repeat limit reached"}
    ollama.faults["POST /api/chat"] = lines({"message": {"content": "a a"}}, words)
    text, remarks, ending = heard(served(ollama).stream(HELLO, Manner()))
    assert text["answer"] == "a a" and ending.reason == "length"
    assert [remark.kind for remark in remarks] == ["repeats"]


@pytest.mark.parametrize("fault", [hang, stall])
def test_a_server_that_hangs_is_left_as_soon_as_the_reply_is_stopped(ollama, fault):
    ollama.faults["POST /api/chat"] = fault
    partner = served(ollama)
    Timer(0.3, partner.stop).start()
    (ending,) = partner.stream(HELLO, Manner())
    assert ending.reason == "interrupted" and ending.seconds < 20
    del ollama.faults["POST /api/chat"]
    assert heard(partner.stream(HELLO, Manner()))[0]["answer"] == "5"


def test_a_conversation_too_long_for_ollama_loses_its_oldest_exchange_and_says_so(ollama):
    lengths = []

    def answer(handler: Handler) -> None:
        lengths.append(len(handler.values["messages"]))
        if lengths[-1] > 2:
            words = '{"error":{"type":"exceed_context_size_error","n_prompt_tokens":99}}'
            return reply(400, {"error": words})(handler)
        lines({"message": {"content": "5"}}, {"done": True, "done_reason": "stop"})(handler)

    ollama.faults["POST /api/chat"] = answer
    asked = talk("a", "b", "c", "d", "e", system="S")
    text, remarks, _ = heard(served(ollama).stream(asked, Manner()))
    assert lengths == [6, 4, 2] and text["answer"] == "5"
    assert [remark.kind for remark in remarks] == ["left out"]
    assert "the oldest 2 exchanges" in remarks[0].text
    ollama.faults["POST /api/chat"] = reply(400, {"error": "exceed_context_size_error"})
    with pytest.raises(OllamaRefused, match="exceed_context_size"):
        list(served(ollama).stream(HELLO, Manner()))


def test_a_model_that_ollama_does_not_have_is_named_with_those_it_has(ollama):
    with pytest.raises(OllamaRefused, match="has no model other; it has m:latest"):
        ServedPartner(OllamaServer(ollama.url), "other", FORMAT)
    assert served(ollama).n_ctx == 64
