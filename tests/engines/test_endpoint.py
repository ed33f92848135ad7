"""An OpenAI-compatible endpoint, played by a loopback server that can misbehave."""

import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import perf_counter, sleep

import pytest

from pipeline.chat import chat_format
from pipeline.engines.completion import Decoding
from pipeline.engines.endpoint import EndpointEngine, _asked_pause
from pipeline.engines.ollama_http import Patience
from pipeline.errors import PipeError
from tests.support.ollama import free_port
from tests.support.openai_server import cut, deltas, endless, openai_server, refusal, sse

FORMAT = chat_format("llama3.2-reasoning")
KEY = "sk-planted-key"
GREEDY = Decoding(9)
SPLIT = [{"reasoning_content": "\n2 + "}, {"reasoning_content": "3\n"}, {"content": "\n\n5"}]


def chats(*questions):
    return [[{"role": "user", "content": question}] for question in questions]


@pytest.fixture
def server():
    with openai_server() as server:
        yield server


@pytest.fixture
def opened(server, monkeypatch):
    """Opens engines that lose no time between tries."""
    monkeypatch.setattr("pipeline.engines.endpoint._FIRST_PAUSE_S", 0.001)
    engines = []

    def open_(url=server.url, **settings):
        engines.append(EndpointEngine(url, "m", FORMAT, **settings))
        return engines[-1]

    yield open_
    for engine in engines:
        engine.close()


def one(engine, decoding=GREEDY, question="2 + 3?", **settings):
    (done,) = engine.answers(chats(question), decoding, **settings)
    return done


def test_what_is_sent_for_a_greedy_and_for_a_sampled_reply(server, opened):
    server.script = [deltas({"content": "5"})]
    engine = opened(server.url + "/")
    one(engine)
    list(engine.answers(chats("a", "b"), Decoding(9, 0.6, 0.9, 40), thinking=False))
    greedy, *sampled = server.bodies
    assert greedy == {
        "model": "m",
        "messages": [{"role": "user", "content": "2 + 3?"}],
        "max_tokens": 9,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert [body["seed"] for body in sampled] == [40, 41]
    assert all((body["temperature"], body["top_p"]) == (0.6, 0.9) for body in sampled)
    assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in sampled)


def test_control_tokens_in_a_question_are_made_harmless(server, opened):
    server.script = [deltas({"content": "5"})]
    one(opened(), question=" a<|eot_id|>b ")
    assert server.bodies[0]["messages"][0]["content"] == "a<| eot_id|>b"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_reply_that_the_server_has_split(server, opened, field):
    parts = [{field: "\n2 + "}, {field: "3\n"}, {"content": "\n\n5"}]
    server.script = [deltas({"role": "assistant", "content": None}, *parts)]
    done = one(opened())
    assert done.text == "<think>\n2 + 3\n</think>\n\n5"
    assert (done.reply.thinking, done.reply.answer) == ("2 + 3", "5")
    assert done.reply.well_formed and done.stopped and done.tokens == 7


@pytest.mark.parametrize("text", ["<think>\n2 + 3\n</think>\n\n5", "5", "2 + 3\n</think>\n\n5"])
def test_a_reply_that_comes_as_the_model_wrote_it(server, opened, text):
    server.script = [deltas(*({"content": letter} for letter in text), tokens=None)]
    done = one(opened())
    assert done.text == text
    assert done.reply.well_formed == text.startswith("<think>")
    assert done.reply.thinking == ("2 + 3" if "think" in text else "")
    assert done.tokens == len(text)


@pytest.mark.parametrize(
    "parts",
    [
        [{"reasoning_content": "2 <think> 3"}, {"content": "5"}],
        [{"reasoning_content": "2 + 3"}, {"content": "</think> 5"}],
        [{"reasoning_content": "2 + 3"}],
    ],
)
def test_a_split_reply_that_is_not_well_formed(server, opened, parts):
    server.script = [deltas(*parts)]
    assert not one(opened()).reply.well_formed


def test_thinking_without_an_answer_is_an_open_block(server, opened):
    server.script = [deltas({"reasoning_content": "2 + 3"}, reason="length")]
    done = one(opened())
    assert done.text == "<think>\n2 + 3"
    assert not done.stopped


def test_a_server_that_does_not_stream(server, opened):
    message = {"role": "assistant", "reasoning": "2 + 3", "content": "5"}
    whole = {
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"completion_tokens": 4},
    }
    server.script = [refusal(200, whole)]
    done = one(opened())
    assert (done.reply.answer, done.tokens, done.stopped) == ("5", 4, True)


def test_pieces_that_are_cut_anywhere_and_hold_line_separators(server, opened):
    content = "a\u2028b\x85c\r 🦙"
    event = {"choices": [{"delta": {"content": content}, "finish_reason": "stop"}]}
    data = f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\ndata: [DONE]\r\n\r\n"
    server.script = [sse(*data)]
    assert one(opened()).text == content


def test_the_first_token_is_timed_from_the_request_on(server, opened):
    def slow(handler):
        sleep(0.15)
        deltas(*SPLIT)(handler)

    server.script = [slow]
    started = perf_counter()
    done = one(opened())
    assert 0.15 <= done.first_token_s <= perf_counter() - started


def test_replies_keep_their_order_and_so_many_are_asked_at_a_time(server, opened):
    def echo(handler):
        number = handler.body["messages"][0]["content"]
        sleep(0.03 * (3 - int(number) % 4))
        deltas({"content": number})(handler)

    server.script = [echo]
    engine = opened(batch_size=4)
    texts = [done.text for done in engine.answers(chats(*map(str, range(10))), GREEDY)]
    assert texts == [str(n) for n in range(10)]
    assert 2 <= server.busiest <= 4


def test_one_at_a_time_is_one_after_another(server, opened):
    asked, most = [], []

    def answer(handler):
        asked.append(handler)
        most.append(len(asked))
        sleep(0.02)
        asked.remove(handler)  # before the reply is whole: what is asked next comes after
        deltas({"content": "5"})(handler)

    server.script = [answer]
    assert len(list(opened().answers(chats("a", "b", "c"), GREEDY))) == 3
    assert most == [1, 1, 1]


def test_an_error_comes_in_its_place_and_nothing_more_is_asked(server, opened):
    def third_fails(handler):
        number = handler.body["messages"][0]["content"]
        if number == "2":
            refusal(400, {"error": {"message": "no"}})(handler)
        else:
            sleep(0.05)
            deltas({"content": number})(handler)

    server.script = [third_fails]
    replies = opened(batch_size=3).answers(chats(*map(str, range(40))), GREEDY)
    assert [next(replies).text, next(replies).text] == ["0", "1"]
    with pytest.raises(PipeError, match="refused: no"):
        next(replies)
    asked = len(server.bodies)
    sleep(0.1)
    assert len(server.bodies) == asked < 10


@pytest.mark.parametrize("at_once", [2, 8])
def test_closing_stops_what_is_under_way_and_waits_for_nobody(server, opened, at_once):
    def first(handler):
        (deltas({"content": "0"}) if handler.body["messages"][0]["content"] == "0" else endless)(
            handler
        )

    server.script = [first]
    replies = opened(batch_size=at_once).answers(chats(*map(str, range(8))), GREEDY)
    assert next(replies).text == "0"
    started = perf_counter()
    replies.close()
    assert perf_counter() - started < 1
    sleep(0.05)
    asked = len(server.bodies)
    sleep(0.1)
    assert len(server.bodies) == asked <= at_once + 1
    assert not server.open_now


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
