"""Replies that run in a loop, and long ones that only look like it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.work.filters import is_loop
from tests.data.judged import TRACE, traces

phrases = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=200
)


@given(phrases, st.integers(0, 8000), st.integers(0, 3000))
@settings(max_examples=150, deadline=None)
def test_a_loop_of_any_phrase_is_caught_anywhere(phrase: str, before: int, after: int) -> None:
    loop = (phrase * (4000 // len(phrase) + 1))[:4000]
    text = traces(20)
    assert is_loop(text[:before] + loop + text[before : before + after])


@pytest.mark.parametrize("period", [1, 2, 3, 10, 50, 333, 700, 1000])
@pytest.mark.parametrize("at", [0, 0.5, 1])
@pytest.mark.parametrize("letters", ["abcdefghij klmnop.\n", "的一是不了人我在有他这"])
def test_a_loop_of_a_long_phrase_is_caught_too(period: int, at: float, letters: str) -> None:
    draw = random.Random(period)
    phrase = "".join(draw.choices(letters, k=period))
    text = traces(30)
    place = round(at * len(text))
    assert is_loop(text[:place] + (phrase * 4000)[:4000] + text[place:])


def test_known_sentences_in_any_order_are_a_loop() -> None:
    draw = random.Random(1)
    said = [
        "Wait, let me check that again.",
        "Hmm, that does not look right.",
        "Let me start over.",
    ]
    text = traces(5)
    assert not is_loop(text)
    assert is_loop(text + " ".join(draw.choices(said, k=100)))


@given(st.integers(), st.sampled_from([" ", "\n", ". ", ", "]))
@settings(max_examples=30, deadline=None)
def test_a_text_without_repeats_is_no_loop(seed: int, between: str) -> None:
    numbers = random.Random(seed).sample(range(9999), 3000)
    assert not is_loop(between.join(map(str, numbers)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no " * 600,
        traces(30),
        "\n".join(f"n = {n}: {n}^2 + 1 = {n * n + 1}, so no." for n in range(2, 400)),
        "\n".join(f"Case {n}. Then b = {n}. But b must be prime, so no." for n in range(300)),
        "\n".join(f"| {n} | {n * n % 97} | {n % 2} |" for n in range(900)),
        "\n".join(f"{n:012b} | {n % 3 == 0}" for n in range(600)),
        "[" + ", ".join(f'{{"id": {n}, "active": true, "tags": []}}' for n in range(300)) + "]",
        "The number is 0." + "3" * 1500,
        f"```\n{TRACE * 2}\n```\nSo the code again, once more:\n```\n{TRACE}\n```\n{traces(9)}",
    ],
    ids=range(10),
)
def test_lists_tables_and_quotes_are_no_loop(text: str) -> None:
    assert not is_loop(text)
