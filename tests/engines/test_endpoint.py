"""An OpenAI-compatible endpoint, played by a loopback server that can misbehave."""

import json
from time import perf_counter, sleep

import pytest

from pipeline.engines.completion import Decoding
from pipeline.errors import PipeError
from tests.engines.endpoints import GREEDY, one
from tests.engines.talks import chats
from tests.support.openai_server import deltas, endless, refusal, sse

SPLIT = [{"reasoning_content": "\n2 + "}, {"reasoning_content": "3\n"}, {"content": "\n\n5"}]


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
    asked, most = [], []

    def echo(handler):
        number = handler.body["messages"][0]["content"]
        asked.append(number)
        most.append(len(asked))
        sleep(0.03 * (3 - int(number) % 4))
        asked.remove(number)  # before the reply is whole: what is asked next comes after
        deltas({"content": number})(handler)

    server.script = [echo]
    engine = opened(batch_size=4)
    texts = [done.text for done in engine.answers(chats(*map(str, range(10))), GREEDY)]
    assert texts == [str(n) for n in range(10)]
    assert 2 <= max(most) <= 4


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
