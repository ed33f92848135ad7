"""Take a dataset's reply apart: reasoning and answer, in any of the tags that datasets use."""

import math
import re

THINK = "<think>", "</think>"
THOUGHT = "<|begin_of_thought|>", "<|end_of_thought|>"
"""OpenThoughts and Bespoke-Stratos; a system prompt explains them to the model."""
SOLUTION = "<|begin_of_solution|>", "<|end_of_solution|>"
ANSWER = "<answer>", "</answer>"

# one scan for all but ANSWER, which is content unless it wraps an answer
_TAG = re.compile(r"<(?:/?think>|\|(?:begin|end)_of_(?:thought|solution)\|>)")
_BOM = "\ufeff"
_LONGEST_INTEGER = 4096
"""Bits: Python refuses to write integers of more than 4,300 digits."""


class RejectedError(Exception):
    """Carries the reason of a reject from the rule that found it to `to_row`."""


def split_reply(text: str) -> tuple[str, str]:
    """Reasoning and answer of a reply that is one closed block and an answer, both stripped.

    Three forms: a `<think>` block and the answer; the same with the whole answer in `<answer>`,
    which is unwrapped; a thought and a solution block. Raises RejectedError with the first rule
    broken: no_reasoning, several_blocks, unclosed_block, unopened_block, text_before_reasoning,
    empty_reasoning, empty_answer.
    """
    tags = _TAG.findall(text)
    if not tags:
        raise RejectedError("no_reasoning")
    thought = tags[0] in THOUGHT + SOLUTION
    before, reasoning, rest = _block(text, tags, THOUGHT if thought else THINK)
    if before:
        raise RejectedError("text_before_reasoning")
    if set(tags) - set(THOUGHT + SOLUTION if thought else THINK):
        raise RejectedError("several_blocks")
    required_text(reasoning, "empty_reasoning")
    required_text(rest, "empty_answer")
    return reasoning, _solution(rest, tags) if thought else _unwrapped(rest)


def has_tags(text: str) -> bool:
    """Whether any of the datasets' tags around reasoning stands in a text."""
    return _TAG.search(text) is not None


def in_thought_tags(text: str) -> bool:
    """Whether a reply that could be split is in thought and solution tags."""
    return text.lstrip().startswith(THOUGHT[0])


def bare_reasoning(text: str) -> str:
    """The reasoning of a column of its own, without think tags that wrap it whole.

    Raises RejectedError: empty_reasoning, and several_blocks, unclosed_block or unopened_block
    where there are other tags in it.
    """
    tags = _TAG.findall(text)
    if not tags:
        return required_text(text.strip(), "empty_reasoning")
    before, reasoning, after = _block(text, tags, THINK)
    if before or after or len(tags) > len(THINK):
        raise RejectedError("several_blocks")
    return required_text(reasoning, "empty_reasoning")


def bare_answer(text: str) -> str:
    """The answer of a column of its own; RejectedError: empty_answer, reasoning_in_answer."""
    if has_tags(text):
        raise RejectedError("reasoning_in_answer")
    return required_text(text.strip(), "empty_answer")


def clean(text: object) -> str:
    """Text that UTF-8 can hold, `\\n` at its line ends, no mark or whitespace around it.

    NFC and NFD, joiners and direction marks stay as they are: they are content.
    Raises RejectedError: not_text, bad_encoding.
    """
    if not isinstance(text, str):
        raise RejectedError("not_text")
    try:
        # much quicker in bytes than to look for a character in other than ASCII
        null = "\0" in text if text.isascii() else b"\0" in text.encode("utf-8")
    except UnicodeEncodeError:
        null = True
    if null:
        raise RejectedError("bad_encoding")
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    # a byte order mark is how a file was written, and would stand before `<think>`
    return text.strip().removeprefix(_BOM).lstrip()


def number_text(value: object) -> str | None:
    """A finite number's or a truth value's text; None of anything else."""
    if isinstance(value, int):
        return str(value) if value.bit_length() <= _LONGEST_INTEGER else None
    return str(value) if isinstance(value, float) and math.isfinite(value) else None


def required_text(text: str, reason: str) -> str:
    if not text:
        raise RejectedError(reason)
    return text


def _block(text: str, tags: list[str], pair: tuple[str, str]) -> tuple[str, str, str]:
    """What stands before, in and after the one block of a text, each stripped."""
    opening, closing = pair
    opened = tags.count(opening)
    if opened > 1 or tags.count(closing) > 1:
        raise RejectedError("several_blocks")
    before, _, rest = text.partition(opening)
    inside, closed, after = rest.partition(closing)
    if not opened or not closed:
        raise RejectedError("unclosed_block" if opened else "unopened_block")
    return before.strip(), inside.strip(), after.strip()


def _solution(text: str, tags: list[str]) -> str:
    """The text of a solution block with nothing around it."""
    before, answer, after = _block(text, tags, SOLUTION)
    if before or after:
        raise RejectedError("unopened_block")
    return required_text(answer, "empty_answer")


def _unwrapped(answer: str) -> str:
    """The answer without `<answer>` tags where they wrap it whole; elsewhere they are content."""
    opening, closing = ANSWER
    if not answer.startswith(opening):
        return answer
    if closing not in answer:
        raise RejectedError("unclosed_block")
    inside = answer.removeprefix(opening).removesuffix(closing)
    if answer.endswith(closing) and opening not in inside and closing not in inside:
        answer = inside.strip()
    return required_text(answer, "empty_answer")
