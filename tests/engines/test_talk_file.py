"""A GGUF as a partner of `pipe chat`: limits, seeds, stopping, a child that dies, the context."""

import os
import signal
from contextlib import closing

import pytest

from pipeline.chat import parse_reply
from pipeline.engines.talk import Manner, Piece
from pipeline.engines.talk_worker import TalkContext
from pipeline.errors import NativeCrash, PipeError
from tests.engines.talks import FORMAT, HELLO, heard, talk


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
