"""An endpoint that is busy, breaks off, never ends or is not there; and what it is told of us."""

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from pipeline.engines.endpoint import EndpointEngine, _asked_pause
from pipeline.engines.ollama_http import Patience
from pipeline.errors import PipeError
from tests.engines.endpoints import GREEDY, KEY, one
from tests.engines.talks import FORMAT, chats
from tests.support.ollama import free_port
from tests.support.openai_server import cut, deltas, endless, refusal, sse


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, opened, status):
    server.script = [refusal(status), refusal(status), deltas({"content": "5"})]
    assert one(opened()).text == "5"
    assert len(server.bodies) == 3


def test_a_connection_that_breaks_is_tried_again_even_inside_a_reply(server, opened):
    half = sse('data: {"choices": [{"delta": {"content": "2 + 3"}}]}\n\n')
    server.script = [cut, half, deltas({"content": "5"})]
    assert one(opened()).text == "5"


def test_tries_are_bounded_and_the_last_refusal_is_told(server, opened):
    server.script = [refusal(503, {"error": {"message": "Loading model"}})]
    with pytest.raises(PipeError, match="refused: Loading model"):
        one(opened())
    assert len(server.bodies) == 6


@pytest.mark.parametrize("status", [400, 401, 404, 501])
def test_what_will_not_get_better_is_not_tried_again(server, opened, status):
    server.script = [refusal(status, {"message": "no such thing"})]
    with pytest.raises(PipeError, match="no such thing"):
        one(opened())
    assert len(server.bodies) == 1


def test_an_error_inside_a_stream_is_an_error(server, opened):
    server.script = [sse('data: {"error": {"message": "context is full"}}\n\n')]
    with pytest.raises(PipeError, match="context is full"):
        one(opened())


def test_retry_after_is_honoured_and_bounded(server, opened, monkeypatch):
    pauses = []

    class Event(threading.Event):
        def wait(self, timeout=None):
            pauses.append(timeout)
            return False

    monkeypatch.setattr("pipeline.engines.remote.Event", Event)
    again = [refusal(429, Retry_After=value) for value in ("3", "100000", "soon")]
    server.script = [*again, deltas({"content": "5"})]
    one(opened())
    assert pauses == [3, 60, 0.004]


def test_retry_after_may_be_a_date():
    later = datetime.now(UTC) + timedelta(seconds=30)
    assert 27 < _asked_pause(format_datetime(later, usegmt=True), 1.0) <= 30
    assert _asked_pause("Wed, 21 Oct 2015 07:28:00 GMT", 1.0) == 0
    assert _asked_pause("Wed, 21 Oct 2015 07:28:00 -0000", 1.0) == 0
    assert _asked_pause(None, 1.5) == _asked_pause("soon", 1.5) == 1.5
    assert _asked_pause("-5", 1.0) == 0


def test_a_reply_that_does_not_end_is_given_up(server, opened):
    server.script = [endless]
    engine = opened(patience=Patience(total=0.1))
    with pytest.raises(PipeError, match="stopped answering"):
        one(engine)
    assert len(server.bodies) == 1


def test_no_server_is_said_at_once(opened):
    engine = opened(f"http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(PipeError, match="No server answers"):
        one(engine)


def test_the_key_goes_into_the_header_and_nowhere_else(server, opened):
    said = {"error": {"message": f"Incorrect API key provided: {KEY}."}}
    server.script = [deltas({"content": "5"}), refusal(401, said), refusal(400, f"<b>{KEY}</b>")]
    engine = opened(key=f"{KEY}\n")
    one(engine)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    for _ in range(2):
        with pytest.raises(PipeError) as error:
            one(engine)
        assert KEY not in str(error.value) and "[the key]" in str(error.value)
    assert KEY not in str(server.bodies) and KEY not in repr(engine._client.headers)


@pytest.mark.parametrize("key", [None, "", " "])
def test_without_a_key_no_header_is_sent(server, opened, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script = [deltas({"content": "5"})]
    one(opened(key=key))
    assert "authorization" not in server.headers[0]


@pytest.mark.parametrize("key", [f"{KEY}\nX-Other: 1", f"{KEY}ü", f"{KEY}\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_unquoted(server, key):
    with pytest.raises(PipeError, match="no HTTP header") as error:
        EndpointEngine(server.url, "m", FORMAT, key=key)
    assert "sk-" not in str(error.value)


def test_what_is_no_url_is_refused():
    with pytest.raises(PipeError, match="no URL"):
        EndpointEngine("http://127.0.0.1:port/v1", "m", FORMAT)


def test_a_loopback_url_is_asked_without_a_proxy_and_another_through_it(
    server, opened, monkeypatch
):
    server.script = [deltas({"content": "5"})]
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert one(opened()).text == "5"
    with pytest.raises(PipeError, match=r"No server answers at http://models\.example"):
        one(opened("http://models.example/v1"))
    assert len(server.bodies) == 1


def test_a_prefill_is_refused(opened):
    messages = [*chats("a")[0], {"role": "assistant", "content": "It is"}]
    with pytest.raises(PipeError, match="go on with a reply"):
        list(opened().answers([messages], GREEDY))
