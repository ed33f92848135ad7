"""A model in Ollama, played by a loopback server: what is asked, and what a reply becomes."""

import json
from time import perf_counter, sleep

import pytest

from pipeline.engines.completion import Decoding
from pipeline.engines.ollama import REPEAT_LIMIT, OllamaServer
from pipeline.engines.ollama_http import Patience
from pipeline.engines.served import OllamaEngine
from pipeline.errors import OllamaRefused, OllamaUnreachable
from tests.engines.talks import FORMAT, chats
from tests.support.faulty_ollama import faulty_ollama, lines, reply
from tests.support.ollama import free_port

CHAT = "POST /api/chat"
GREEDY = Decoding(9)
END = {"done": True, "done_reason": "stop", "eval_count": 4}


def said(**message):
    return {"message": message}


@pytest.fixture
def fake():
    with faulty_ollama() as ollama:
        yield ollama


@pytest.fixture
def asked(fake):
    """The bodies of all chats; each is answered as `fake.faults[CHAT]` then says."""
    bodies = []

    def watch(answer):
        def watched(handler):
            bodies.append(json.loads(handler.content))
            answer(handler)

        fake.faults[CHAT] = watched
        return bodies

    return watch


def engine(fake, model="m", **settings):
    return OllamaEngine(OllamaServer(fake.url), model, FORMAT, **settings)


def one(fake, conversation=None, **settings):
    (done,) = engine(fake).answers([conversation or chats("2 + 3?")[0]], GREEDY, **settings)
    return done


def test_greedy_and_sampled_options_are_the_protocol_and_nothing_else(fake, asked):
    bodies = asked(lines(said(content="5"), END))
    one(fake)
    list(engine(fake).answers(chats("a", "b"), Decoding(9, 0.6, 0.95, 40)))
    greedy, *sampled = [body["options"] for body in bodies]
    assert greedy == {"num_predict": 9, "temperature": 0.0, "repeat_penalty": 1.0}
    assert sampled == [
        greedy | {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "min_p": 0.0, "seed": seed}
        for seed in (40, 41)
    ]


def test_a_question_is_sent_as_it_was_trained_and_with_no_control_token(fake, asked):
    bodies = asked(lines(said(content="5"), END))
    earlier = {"role": "assistant", "content": FORMAT.target("hm", "So.")}
    (question,) = chats(" a<|eot_id|> ")[0]
    one(fake, [question, earlier, question])
    assert [m["content"] for m in bodies[0]["messages"]] == ["a<| eot_id|>", "So.", "a<| eot_id|>"]


@pytest.mark.parametrize("thinking", [True, False])
def test_thinking_is_asked_for_or_not(fake, asked, thinking):
    bodies = asked(lines(said(content="5"), END))
    one(fake, thinking=thinking)
    assert bodies[0]["think"] is thinking


def test_a_prefill_is_gone_on_with_unparsed(fake, asked):
    bodies = asked(lines(said(content=" 3\n</think>\n\n5"), END))
    begun = {"role": "assistant", "content": "<think>\n2 +\n"}
    done = one(fake, [*chats("2 + 3?")[0], begun])
    assert bodies[0]["think"] is False
    assert bodies[0]["messages"][-1] == {"role": "assistant", "content": "<think>\n2 +"}
    assert done.text == " 3\n</think>\n\n5"
    assert (done.reply.thinking, done.reply.answer) == ("3", "5")


def test_a_split_reply_becomes_the_text_that_was_generated(fake):
    pieces = [said(thinking="2 + "), said(thinking="3\n"), said(content="5")]
    fake.faults[CHAT] = lines(*pieces, END)
    done = one(fake)
    assert done.text == "<think>\n2 + 3\n</think>\n\n5"
    assert done.reply.well_formed and done.stopped and done.tokens == 4


@pytest.mark.parametrize(
    "pieces",
    [
        [said(content="5")],
        [said(thinking="2 + 3")],
        [said(thinking=" "), said(content="5")],
        [said(thinking="2 + 3"), said(content="<think>5")],
        [said(thinking="2 <think> 3"), said(content="5")],
        [said(content="2 + 3\n</think>\n\n5")],
        [],
    ],
)
def test_what_is_not_one_block_and_an_answer_is_not_well_formed(fake, pieces):
    fake.faults[CHAT] = lines(*pieces, END)
    assert not one(fake).reply.well_formed


@pytest.mark.parametrize("end", [{"done": True, "done_reason": "length"}, {"done": False}])
def test_a_reply_that_was_cut_did_not_stop(fake, end):
    fake.faults[CHAT] = lines(said(thinking="2 +"), end)
    done = one(fake)
    assert not done.stopped
    assert done.text == "<think>\n2 +"


def test_nothing_is_to_be_dropped_of_what_the_model_sees(fake, asked):
    bodies = asked(lines(said(content="5"), END))
    one(fake)
    assert bodies[0]["truncate"] is bodies[0]["shift"] is False


# the first as Ollama 0.34.1 says it
OVERLONG = [
    '{"error":{"code":400,"message":"request (36017 tokens) exceeds the available context size '
    '(1024 tokens), try increasing it","type":"exceed_context_size_error"}}',
    "the prompt is longer than the context length currently available to the model",
]


@pytest.mark.parametrize("words", OVERLONG)
def test_a_prompt_beyond_the_context_is_a_reply_cut_before_its_first_token(fake, words):
    fake.faults[CHAT] = reply(400, {"error": words})
    done = one(fake)
    assert (done.text, done.tokens, done.stopped) == ("", 0, False)


def test_a_reply_waits_for_as_many_as_are_asked_for(fake, asked):
    def late(handler):
        sleep(0.6)
        lines(said(content="5"), END)(handler)

    asked(late)
    server = OllamaServer(fake.url, Patience(slow=0.3))
    patient = OllamaEngine(server, "m", FORMAT, batch_size=8)
    assert [done.text for done in patient.answers(chats("a", "b"), GREEDY)] == ["5", "5"]


def test_a_reply_ended_for_repeating_itself_keeps_what_was_said(fake):
    fake.faults[CHAT] = lines(said(thinking="a"), said(thinking="a"), {"error": REPEAT_LIMIT})
    done = one(fake)
    assert (done.reply.thinking, done.tokens, done.stopped) == ("aa", 2, False)


def test_the_first_token_is_timed_from_the_request_on(fake):
    def slow(handler):
        sleep(0.15)
        lines(said(thinking=""), said(thinking="2"), END)(handler)

    fake.faults[CHAT] = slow
    started = perf_counter()
    done = one(fake)
    assert 0.15 <= done.first_token_s <= perf_counter() - started


def test_a_reply_without_any_text_has_no_first_token(fake):
    fake.faults[CHAT] = lines(END)
    assert one(fake).first_token_s is None


def test_replies_asked_for_together_keep_their_order(fake, asked):
    def echo(handler):
        number = handler.values["messages"][0]["content"]
        sleep(0.03 * (3 - int(number) % 4))
        lines(said(content=number), END)(handler)

    bodies = asked(echo)
    replies = engine(fake, batch_size=4).answers(chats(*map(str, range(10))), GREEDY)
    assert [done.text for done in replies] == [str(n) for n in range(10)]
    assert len(bodies) == 10


def test_an_error_comes_in_its_place_and_nothing_more_is_asked(fake, asked):
    def second_fails(handler):
        number = handler.values["messages"][0]["content"]
        if number == "1":
            reply(500, {"error": "runner died"})(handler)
        else:
            sleep(0.05)
            lines(said(content=number), END)(handler)

    bodies = asked(second_fails)
    replies = engine(fake, batch_size=3).answers(chats(*map(str, range(40))), GREEDY)
    assert next(replies).text == "0"
    with pytest.raises(OllamaRefused, match="runner died"):
        next(replies)
    assert len(bodies) < 10


def test_closing_stops_the_server_too(fake):
    ended = []

    def endless(handler):
        number = handler.values["messages"][0]["content"]
        if number == "0":
            lines(said(content="0"), END)(handler)
            return
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.ollama.released.wait(0.02):
            try:
                handler.wfile.write(json.dumps(said(content="a")).encode() + b"\n")
            except OSError:
                ended.append(number)
                return

    fake.faults[CHAT] = endless
    replies = engine(fake, batch_size=3).answers(chats("0", "1", "2"), GREEDY)
    assert next(replies).text == "0"
    replies.close()
    deadline = perf_counter() + 5
    while len(ended) < 2 and perf_counter() < deadline:
        sleep(0.01)
    assert sorted(ended) == ["1", "2"]


PLACES = [
    {"name": "other:latest", "size": 9, "size_vram": 9},
    {"name": "m:latest", "size": 7, "size_vram": 0},
    {"name": "m:q8_0", "size": 8, "size_vram": 5},
]


@pytest.mark.parametrize(
    ("model", "size"), [("m", 7), ("M:latest", 7), ("m:Q8_0", 5), ("q", None), ("me/m", None)]
)
def test_memory_is_what_the_server_says_of_this_model(fake, model, size):
    fake.faults["GET /api/ps"] = reply(200, {"models": PLACES})
    assert engine(fake, model).memory_bytes() == size


def test_memory_is_not_known_where_nobody_says():
    server = OllamaServer(f"127.0.0.1:{free_port()}")
    assert OllamaEngine(server, "m", FORMAT).memory_bytes() is None


def test_no_server_is_an_error(fake):
    server = OllamaServer(f"127.0.0.1:{free_port()}")
    with pytest.raises(OllamaUnreachable):
        list(OllamaEngine(server, "m", FORMAT, batch_size=2).answers(chats("a", "b"), GREEDY))
