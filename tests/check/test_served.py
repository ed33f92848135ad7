"""Gates of the served model, against a server that does each thing wrong in turn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.chat import Conversation
from pipeline.check import context, served, subjects
from pipeline.check.gates import Probe, judge
from pipeline.check.served import same_reply
from pipeline.check.subject import WHOLE, Subject
from pipeline.engines.ollama import REPEAT_LIMIT, ChatReply
from pipeline.errors import OllamaRefused, PipeError
from tests.check.fakes import FORMAT, GOOD, FakeLlama, FakeServer, chat_reply, completion, subject


def answering(tmp_path: Path, *replies: ChatReply, **fields: Any) -> Subject:
    """A server that gives these replies in turn, over and over."""
    count = 0

    def reply(_: Conversation, asked: Mapping[str, Any]) -> ChatReply:
        nonlocal count
        count += 1
        return replies[(count - 1) % len(replies)]

    return subject(tmp_path, server=FakeServer(reply=reply), **fields)


def test_replies_that_think_once_and_stop_pass(tmp_path: Path) -> None:
    asked = subject(tmp_path, server=FakeServer())
    assert served.stops(asked)[1] == served.thinks(asked)[1] == []
    assert served.greedy_answers(asked) == (
        "50 greedy replies, 0 near ties under 0.25 logits",
        [],
    )


def test_a_model_that_goes_on_to_the_limit_fails(tmp_path: Path) -> None:
    _, wrong = served.stops(answering(tmp_path, chat_reply("on", "and on", "length")))
    assert len(wrong) == 20 and "does not end: length" in wrong[0]


def test_replies_cut_as_they_think_are_told_apart_and_judged_by_whether_they_end(
    tmp_path: Path,
) -> None:
    good, cut = chat_reply("so", "4"), chat_reply("so and so", "", "length")
    some = answering(tmp_path, good, cut)
    assert served.thinks(some)[1] == [] and "10 replies, without 10 cut" in served.thinks(some)[0]
    compared, wrong = served.stops(some)
    assert "10 of them cut by that while they think" in compared and len(wrong) == 10
    assert wrong[0].endswith("still thinks at its limit, where the context of 1024 tokens ends")
    assert served.structured(answering(tmp_path, cut, chat_reply("so", '{"even": true}')))[1] == []
    for look in (served.thinks, served.structured):
        with pytest.raises(PipeError, match="still think at their limit") as error:
            look(answering(tmp_path, cut))
        assert "serve.num_ctx" in error.value.hint
    with pytest.raises(PipeError, match="at their limit, 160 tokens"):
        served.stops(answering(tmp_path, cut, part=None))


def test_a_reply_has_the_room_that_the_context_leaves(tmp_path: Path) -> None:
    asked = subject(tmp_path, server=FakeServer(n_ctx=300), limit=300)
    assert asked.run.encoder is not None
    prompt = len(asked.run.encoder.prompt(asked.questions[0]))
    served.stops(asked)
    sent = [each["options"]["num_predict"] for each in asked.ollama.asked]  # type: ignore[attr-defined]
    assert sent[0] == 300 - prompt - 1 and set(sent[WHOLE:]) == {64}
    assert asked.room([{"role": "user", "content": "x " * 400}]) == 1


def test_each_reply_is_told_as_it_comes(tmp_path: Path) -> None:
    told: list[Any] = []
    asked = subject(tmp_path, server=FakeServer(), emit=told.append)
    served.greedy_answers(asked)
    assert [(each.task, each.done) for each in told] == [
        (f"replies: {whose}", n) for whose in ("llama.cpp", "Ollama") for n in range(1, 51)
    ]


def test_room_is_made_in_ollama_too(tmp_path: Path) -> None:
    asked = subject(tmp_path, server=FakeServer())
    asked.make_room()
    assert asked.ollama.asked == [{"unload": "model"}]  # type: ignore[attr-defined]


def test_the_context_is_that_of_the_model_asked_for(tmp_path: Path) -> None:
    class Busy(FakeServer):
        def running(self) -> list[dict[str, Any]]:
            return [{"name": "other:latest", "context_length": 8192}, *super().running()]

    server: Any = Busy(n_ctx=512)
    assert context.loaded_context(server, "Model") == 512
    assert subjects._stated_context(server, "model", {}) == 512
    assert context.loaded_context(server, "model:q8_0") == 0


def test_one_reply_in_twenty_may_fail_and_two_may_not(tmp_path: Path) -> None:
    good, bad = chat_reply("so", "4"), chat_reply("on", "and on", "length")
    once = answering(tmp_path, bad, *[good] * 49)
    assert served.stops(once)[1] == [] and "1 may fail" in served.stops(once)[0]
    assert len(served.stops(answering(tmp_path, bad, *[good] * 9))[1]) == 2


@pytest.mark.parametrize(
    "reply",
    [
        chat_reply("", "<think>\nso\n</think>\n\n4"),
        chat_reply("", "4"),
        chat_reply("so", ""),
        chat_reply("so", "4</think>"),
        chat_reply("so <think> again", "4"),
    ],
    ids=["all in the content", "no thinking", "no answer", "a leaked tag", "two blocks"],
)
def test_thinking_anywhere_but_in_its_field_fails(tmp_path: Path, reply: ChatReply) -> None:
    assert len(served.thinks(answering(tmp_path, reply))[1]) == 20


def test_a_template_without_thinking_fails_by_its_capabilities(tmp_path: Path) -> None:
    asked = subject(tmp_path, server=FakeServer(capabilities=("completion",)))
    assert served.thinks(asked)[1] == ["Ollama does not know that model thinks"]


@pytest.mark.parametrize(
    "reply",
    [chat_reply("so", "4"), chat_reply("", "<think>4"), chat_reply("", "4", "length")],
    ids=["thinks all the same", "leaks a tag", "does not stop"],
)
def test_a_direct_answer_with_thinking_or_without_an_end_fails(
    tmp_path: Path, reply: ChatReply
) -> None:
    asked = answering(tmp_path, reply)
    assert len(served.answers_directly(asked)[1]) == 5
    assert all(each["think"] is False for each in asked.ollama.asked)  # type: ignore[attr-defined]
    assert served.answers_directly(answering(tmp_path, chat_reply("", "4")))[1] == []


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (chat_reply("so", "4"), "no JSON by the schema"),
        (chat_reply("so", '{"even": "yes"}'), "no JSON by the schema"),
        (chat_reply("so", '{"odd": true}'), "no JSON by the schema"),
        (chat_reply("so", '{"even": tr'), "no JSON by the schema"),
        (chat_reply("", '{"even": true}'), "without thinking"),
        (chat_reply("so", '{"even": true}', "length"), "does not end"),
    ],
)
def test_structured_output_must_follow_thinking_and_the_schema(
    tmp_path: Path, reply: ChatReply, said: str
) -> None:
    _, wrong = served.structured(answering(tmp_path, reply))
    assert len(wrong) == 3 and said in wrong[0]
    assert served.structured(answering(tmp_path, chat_reply("so", '{"even": false}')))[1] == []


def test_a_stream_that_says_something_else_fails_unless_it_was_a_near_tie(tmp_path: Path) -> None:
    def reply(_: Conversation, asked: Mapping[str, Any]) -> ChatReply:
        whole = asked.get("stream") is False
        return chat_reply("10 + 20 = 30\n", "30 pens." if whole else "31 pens.")

    certain = subject(tmp_path, FakeLlama(gap=3.0), FakeServer(reply=reply))
    _, wrong = served.streaming(certain)
    assert wrong[0] == "question 1 differs where the lead was 3.0000 logits"
    near = subject(tmp_path, FakeLlama(gap=0.1), FakeServer(reply=reply))
    compared, wrong = served.streaming(near)
    assert wrong == [] and "question 3 differs where the lead was 0.1000 logits" in compared


def test_without_the_file_no_difference_can_be_called_a_tie(tmp_path: Path) -> None:
    replies = chat_reply("so", "4"), chat_reply("so", "5")
    _, wrong = served.streaming(answering(tmp_path, *replies, files={}))
    assert "the lead was inf logits" in wrong[0]


def test_a_greedy_difference_passes_only_under_the_bound_and_is_shown(tmp_path: Path) -> None:
    other = FORMAT.target("10 + 20 = 30", "31 pens.")
    server = FakeServer()
    compared, wrong = served.greedy_answers(
        subject(tmp_path, FakeLlama(text=other, gap=0.2), server)
    )
    assert wrong == [] and "50 near ties under 0.25 logits; question 1 differs" in compared
    _, wrong = served.greedy_answers(subject(tmp_path, FakeLlama(text=other, gap=0.3), server))
    assert len(wrong) == 50


def test_replies_are_the_same_as_a_whole_or_in_their_parts() -> None:
    mine, theirs = completion(GOOD), chat_reply("10 + 20 = 30\n", "30 pens.")
    assert same_reply(mine, theirs, FORMAT)
    assert same_reply(completion("30 pens."), chat_reply("", "30 pens."), FORMAT)
    assert not same_reply(completion(GOOD + "!"), theirs, FORMAT)
    assert not same_reply(completion(GOOD, stopped=False), theirs, FORMAT)


def test_a_malformed_reply_that_the_server_splits_elsewhere_is_the_same_text() -> None:
    twice = "<think>\nso\n</think>\n\n4\n</think>\n\n5"
    assert same_reply(completion(twice), chat_reply("so\n", "4\n</think>\n\n5"), FORMAT)
    assert not same_reply(completion(twice), chat_reply("so\n", "4\n</think>\n\n6"), FORMAT)


def test_of_a_cut_reply_a_tag_s_beginning_may_be_held_back() -> None:
    begun = completion("<think>\n10 + 20 = 30\n</th", stopped=False)
    assert same_reply(begun, chat_reply("10 + 20 = 30\n", "", "length"), FORMAT)
    assert not same_reply(begun, chat_reply("10", "", "length"), FORMAT)
    assert not same_reply(begun, chat_reply("10 + 20 = 31\n", "", "length"), FORMAT)


@pytest.mark.parametrize(
    ("number", "faults"), [("0.34.1", 0), ("0.30.0", 0), ("0.24.0", 1), ("0.17.0", 2), ("0.6", 3)]
)
def test_a_server_too_old_is_told_what_it_lacks(tmp_path: Path, number: str, faults: int) -> None:
    _, wrong = served.version(subject(tmp_path, server=FakeServer(number=number)))
    assert len(wrong) == faults


def test_a_server_without_a_version_is_not_judged(tmp_path: Path) -> None:
    probe = Probe("version", "served", ("server",), "update", served.version)
    assert judge(probe, subject(tmp_path, server=FakeServer(number="0.0.0"))).status == "not_run"


def test_a_context_that_holds_passes_and_says_what_is_cut_by_default(tmp_path: Path) -> None:
    compared, wrong = context.context_length(subject(tmp_path, server=FakeServer(n_ctx=256)))
    assert wrong == []
    assert compared.startswith("254 of 256 tokens evaluated whole; 288 refused")
    assert "else cut to 128" in compared


def test_a_context_cut_by_the_server_fails(tmp_path: Path) -> None:
    asked = subject(tmp_path, server=FakeServer(n_ctx=128, cuts_in_silence=True), limit=8)
    asked.n_ctx = 256
    _, wrong = context.context_length(asked)
    assert wrong[0] == "of a prompt of 254 tokens 64 are evaluated"
    assert wrong[1] == "Ollama has loaded it with a context of 128 tokens, not 256"
    assert "is taken, 64 evaluated, and may not be cut" in wrong[2]


def test_a_prompt_is_as_long_as_asked_to_within_a_word(tmp_path: Path) -> None:
    asked = subject(tmp_path)
    for most in (60, 200, 999):
        assert most - 2 <= context.prompt_of(asked, most)[1] <= most


def test_a_reply_that_ollama_ends_for_its_repetition_does_not_stop(tmp_path: Path) -> None:
    def reply(_: Conversation, asked: Mapping[str, Any]) -> ChatReply:
        raise OllamaRefused(f"refused /api/chat: {REPEAT_LIMIT}")

    asked = subject(tmp_path, server=FakeServer(reply=reply))
    assert f"does not end: {REPEAT_LIMIT}" in served.stops(asked)[1][0]
