"""What all partners of `pipe chat` share: pieces trimmed at their ends, conversations that fit."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.engines.talk import Trim, fitted
from pipeline.errors import PipeError
from tests.engines.talks import talk


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
