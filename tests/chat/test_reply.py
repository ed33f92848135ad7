"""Replies taken apart, whole and as they stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chat import ReplySplitter, chat_format, parse_reply

FORMAT = chat_format("llama3.2-reasoning")


@pytest.mark.parametrize(
    ("text", "thinking", "answer", "well_formed"),
    [
        ("<think>\na\n</think>\n\n42", "a", "42", True),
        ("42", "", "42", False),
        ("<think>\na", "a", "", False),
        ("<think>\na\n</think>\n\n", "a", "", False),
        ("<think>\n\n</think>\n\n42", "", "42", False),
        ("a</think>42", "a", "42", False),
        (" <think>\na\n</think>\n\n42", "a", "42", False),
        ("<think>\na<think>\n</think>\n\n42", "a<think>", "42", False),
        ("<think>\na\n</think>\n\n</think>42", "a\n</think>", "42", False),
    ],
)
def test_parse_reply(text: str, thinking: str, answer: str, well_formed: bool) -> None:
    reply = parse_reply(text, FORMAT)
    assert (reply.thinking, reply.answer, reply.well_formed) == (thinking, answer, well_formed)


PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</", "think", ">", "\n", "42", "a"]), max_size=12
)


@given(PIECES, st.data())
def test_a_stream_says_the_same_however_it_is_cut(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    whole = ReplySplitter(FORMAT)
    expected = _joined([*whole.feed(text), *whole.end()])
    cut = data.draw(st.lists(st.integers(0, len(text)), max_size=6).map(sorted))
    splitter = ReplySplitter(FORMAT)
    found = []
    for start, end in zip([0, *cut], [*cut, len(text)], strict=True):
        found += splitter.feed(text[start:end])
    assert _joined([*found, *splitter.end()]) == expected


def _joined(parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    joined: list[tuple[str, str]] = []
    for kind, text in parts:
        if joined and joined[-1][0] == kind:
            joined[-1] = (kind, joined[-1][1] + text)
        else:
            joined.append((kind, text))
    return joined


def test_a_stream_splits_as_parse_reply_does() -> None:
    splitter = ReplySplitter(FORMAT)
    text = "<think>\n6 x 7\n</think>\n\n42"
    parts = dict(_joined([part for letter in text for part in splitter.feed(letter)]))
    assert {kind: said.strip() for kind, said in parts.items()} == {
        "thinking": "6 x 7",
        "answer": "42",
    }
