"""Partners of `pipe chat`: what they send, what comes back in pieces, and what goes wrong."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from threading import Timer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chat import Encoder, Message, chat_format, parse_reply
from pipeline.engines.gguf_file import GgufFile, read_gguf
from pipeline.engines.ollama import OllamaServer
from pipeline.engines.talk import Ending, Manner, Piece, Remark, Trim, fitted
from pipeline.engines.talk_file import FilePartner, RunPrompter, TemplatePrompter
from pipeline.engines.talk_served import ServedPartner
from pipeline.engines.talk_worker import TalkContext
from pipeline.errors import NativeCrash, OllamaRefused, OllamaUnreachable, PipeError
from tests.support.faulty_ollama import (
    FaultyOllama,
    Handler,
    faulty_ollama,
    hang,
    lines,
    reply,
    stall,
)
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tokenizer import write_base

FORMAT = chat_format("llama3.2-reasoning")
GREEDY = {"temperature": 0.0, "top_p": 1.0, "repeat_penalty": 1.0}
HELLO: list[Message] = [{"role": "user", "content": "Hello"}]


def talk(*contents: str, system: str = "") -> list[Message]:
    roles = ("user", "assistant")
    first = [Message(role="system", content=system)] if system else []
    said = [Message(role=roles[n % 2], content=text) for n, text in enumerate(contents)]
    return first + said


def heard(events) -> tuple[dict[str, str], list[Remark], Ending | None]:
    text, remarks, last = {"thinking": "", "answer": ""}, [], None
    for event in events:
        if isinstance(event, Piece):
            text[event.part] += event.text
        elif isinstance(event, Remark):
            remarks.append(event)
        else:
            last = event
    return text, remarks, last


@given(st.text(" \nab", max_size=30), st.lists(st.integers(0, 30)))
def test_pieces_join_to_the_stripped_part_wherever_it_was_cut(text, cuts):
    trim, places = Trim(), sorted({0, *(c for c in cuts if c < len(text)), len(text)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert "".join(trim.feed("answer", piece) for piece in pieces) == text.strip()


def test_thinking_and_answer_are_trimmed_apart():
    trim = Trim()
    said = [("thinking", "\n a "), ("thinking", "b \n"), ("answer", "\n\nc"), ("answer", " d\n")]
    assert [trim.feed(part, text) for part, text in said] == ["a", " b", "c", " d"]


@given(st.integers(0, 5), st.integers(3, 60), st.booleans())
def test_the_oldest_exchanges_are_left_out_and_never_the_question_or_the_system(n, room, system):
    asked = talk(*(f"text {i}" for i in range(2 * n + 1)), system="S" if system else "")

    def count(conversation):
        return sum(len(message["content"]) for message in conversation)

    try:
        kept, left_out = fitted(asked, count, room)
    except PipeError as error:
        assert count(asked[:system] + asked[-1:]) > room and "tokens" in error.message
        return
    assert count(kept) <= room
    assert kept == asked[:system] + asked[system + left_out :]
    assert left_out % 2 == 0
    # one exchange less would not have fitted
    assert not left_out or count(asked[:system] + asked[system + left_out - 2 :]) > room


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_base(folder)
    return write_tiny_gguf(folder / "tiny.gguf", FORMAT.jinja)


@pytest.fixture(scope="module")
def partner(tiny: Path) -> Iterator[FilePartner]:
    encoder = Encoder(tiny.parent / "tokenizer.json", FORMAT)
    partner = FilePartner(tiny, RunPrompter(encoder), n_ctx=96, sampling=GREEDY, threads=1)
    yield partner
    partner.close()


def test_a_reply_ends_where_the_context_is_full(partner):
    *_, ending = partner.stream(HELLO, Manner(temperature=2.0, seed=5))
    assert ending.reason == "length" and ending.prompt_tokens + ending.tokens == 96
    assert ending.first_token_s is not None and ending.seconds >= ending.first_token_s > 0


def test_the_limit_counts_tokens_and_the_seed_draws_the_same_again(partner):
    drawn = Manner(temperature=1.5, seed=11, max_new_tokens=20)
    first, _, ending = heard(partner.stream(HELLO, drawn))
    assert ending and (ending.reason, ending.tokens) == ("length", 20)
    assert heard(partner.stream(HELLO, drawn))[0] == first
    assert heard(partner.stream(HELLO, Manner(1.5, 12, 20)))[0] != first


def test_a_reply_that_nobody_reads_to_its_end_leaves_the_next_one_whole(partner):
    manner = Manner(max_new_tokens=12)
    whole = heard(partner.stream(HELLO, manner))[0]
    with closing(partner.stream(talk("Something else"), Manner())) as events:
        next(events)
    assert heard(partner.stream(HELLO, manner))[0] == whole


def test_a_reply_that_is_stopped_ends_as_interrupted_and_keeps_what_came(partner):
    text, ending = "", None
    for event in partner.stream(HELLO, Manner()):
        if isinstance(event, Piece):
            text += event.text
            partner.stop()
        else:
            ending = event
    assert ending.reason == "interrupted" and text and ending.tokens < 20


def test_a_child_that_dies_is_one_error_and_the_next_question_is_answered(partner):
    events = partner.stream(HELLO, Manner())
    next(events)
    os.kill(partner._process.pid, signal.SIGKILL)
    with pytest.raises(NativeCrash, match="died with SIGKILL"):
        list(events)
    assert heard(partner.stream(HELLO, Manner(max_new_tokens=3)))[2].tokens == 3


def test_the_context_says_when_it_leaves_something_out(partner):
    long = [f"number {n} " * 4 for n in range(5)]
    _, remarks, ending = heard(partner.stream(talk(*long), Manner(max_new_tokens=4)))
    assert [remark.kind for remark in remarks] == ["left out"]
    assert ending.prompt_tokens <= 92
    with pytest.raises(PipeError, match="The question takes"):
        list(partner.stream(talk("many words " * 60), Manner()))


def test_a_file_outside_a_run_is_asked_by_its_own_template(tiny, partner):
    prompter = TemplatePrompter(read_gguf(tiny), FORMAT)
    other = FilePartner(tiny, prompter, n_ctx=96, sampling=GREEDY, threads=1)
    try:
        for thinking in (True, False):
            manner = Manner(max_new_tokens=12, thinking=thinking)
            ours, theirs = (heard(each.stream(HELLO, manner)) for each in (partner, other))
            assert ours[0] == theirs[0]
            assert ours[2].prompt_tokens == theirs[2].prompt_tokens
        spelled = talk("say <|eot_id|> now")
        prompt = prompter.prompt(spelled, True, other._ask).ids
        clean = prompter.prompt(talk("say it now"), True, other._ask).ids
        end = other._ask("tokenize", text=FORMAT.end_of_turn, add_bos=False)
        assert len(end) == 1 and prompt.count(end[0]) == clean.count(end[0]) > 0
        assert [r.kind for r in heard(other.stream(spelled, Manner()))[1]] == ["control tokens"]
    finally:
        other.close()


def test_what_a_prompt_shares_with_the_last_is_not_decoded_again(tiny):
    import numpy as np

    kept, fresh = (TalkContext(str(tiny), n_ctx=96, gpu_layers=0, threads=1) for _ in range(2))
    assert kept.keep([1, 2, 3, 4]) == 0
    kept.extend([1, 2, 3, 4], wanted=True)
    assert kept.keep([1, 2, 9, 4]) == 2
    assert kept.keep([1, 2]) == 1  # the last is decoded always: its logits are wanted
    kept.extend([2], wanted=False)
    assert kept.keep([1, 2, 9]) == 2
    logits = [context_logits(kept, [9], 2), context_logits(fresh, [1, 2, 9], 0)]
    np.testing.assert_allclose(*logits, atol=1e-3)


def test_a_memory_that_forgets_all_or_nothing_is_decoded_again(tiny, monkeypatch):
    import llama_cpp
    import numpy as np

    kept, fresh = (TalkContext(str(tiny), n_ctx=96, gpu_layers=0, threads=1) for _ in range(2))
    kept.extend([1, 2, 3, 4], wanted=True)
    forget = llama_cpp.llama_memory_seq_rm

    def whole_only(memory, sequence, start, end):
        return False if start > 0 else forget(memory, sequence, start, end)

    monkeypatch.setattr(llama_cpp, "llama_memory_seq_rm", whole_only)
    assert kept.keep([1, 2, 9]) == 0
    logits = [context_logits(context, [1, 2, 9], 0) for context in (kept, fresh)]
    np.testing.assert_allclose(*logits, atol=1e-3)


FOREIGN = {
    2: ["<unk>"],
    3: ["<start_of_turn>", "[INST]", "[/INST]", "</s>", "<｜User｜>", "<｜begin▁of▁sentence｜>"],
    4: ["<end_of_turn>", "  ", "<table>", "<think>"],
    1: ["hello", "[IN"],
}


def foreign() -> TemplatePrompter:
    metadata = {
        "tokenizer.chat_template": "{{ '<start_of_turn>' }}x{{ '<end_of_turn>' }}  <think>",
        "tokenizer.ggml.tokens": [text for texts in FOREIGN.values() for text in texts],
        "tokenizer.ggml.token_type": [kind for kind, texts in FOREIGN.items() for _ in texts],
    }
    return TemplatePrompter(GgufFile(Path("x.gguf"), metadata, ()), FORMAT)


MARKS = [*FOREIGN[2], *FOREIGN[3], "<end_of_turn>"]


@given(st.lists(st.sampled_from([*MARKS, "<|eot_id|>", "<", "[IN", "</", "s>", " ", "a"])))
def test_no_control_token_of_a_foreign_file_is_spelled_any_more(pieces):
    text = "".join(pieces)
    neutral = foreign().neutral(text)
    assert not any(mark in neutral for mark in [*MARKS, "<|eot_id|>"])
    assert neutral.replace(" ", "") == text.replace(" ", "")


def test_what_is_only_text_to_a_foreign_file_stays():
    text = "hello  <table> <think> [IN</think>"
    assert foreign().neutral(text) == text


def test_a_reply_that_closes_what_it_never_opened_is_read_as_eval_does(tiny, partner, monkeypatch):
    said = iter(["2 + 3\n</th", "ink>\n\n5"])

    def ask(operation, **_):
        if operation != "step":
            return None
        text = next(said, None)
        return {"text": text, "tokens": 1} if text else {"text": "", "tokens": 3, "reason": "stop"}

    monkeypatch.setattr(partner, "_ask", ask)
    _, remarks, ending = heard(partner.stream(HELLO, Manner()))
    assert ending.reply == parse_reply("2 + 3\n</think>\n\n5", FORMAT)
    assert (ending.reply.thinking, ending.reply.answer) == ("2 + 3", "5")
    assert [remark.kind for remark in remarks] == ["tags"]


def context_logits(context, tokens, position):
    from pipeline.engines.llama_context import Feed

    return context.decode([Feed(0, position, tokens, 1)]).copy()


def test_a_template_that_opens_the_thinking_itself_is_understood(tiny, tmp_path):
    opening = FORMAT.jinja + "{{- '<think>\\n' }}"
    prompter = TemplatePrompter(read_gguf(write_tiny_gguf(tmp_path / "r1.gguf", opening)), FORMAT)
    sent = []

    def ask(operation, **given):
        if operation == "render":
            return {"prompt": "<s>user Hi assistant<think>\n", "bos": "<s>"}
        sent.append(given["text"])
        return [1]

    assert prompter.prompt(HELLO, True, ask).opened
    assert not prompter.prompt(HELLO, False, ask).opened
    assert sent == [
        "user Hi assistant<think>\n",
        "user Hi assistant<think>\n\n</think>\n\n",
    ]


def test_a_file_without_a_template_is_refused(tmp_path):
    header = read_gguf(write_tiny_gguf(tmp_path / "none.gguf", ""))
    with pytest.raises(PipeError, match="no chat template"):
        TemplatePrompter(header, FORMAT)


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
