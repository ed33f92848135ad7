"""A row of data as a conversation, and as an exchange to learn from."""

from collections.abc import Mapping
from typing import Any

from pipeline.chat.encode import Exchange
from pipeline.chat.pieces import Message


def conversation_of(row: Mapping[str, Any]) -> list[Message]:
    """The row's question, after its system message where it has one.

    Where the row gives the reply's start, this stands at the end, to be gone on with.
    """
    messages: list[Message] = [{"role": "user", "content": row["question"]}]
    if system := row.get("system"):
        messages.insert(0, {"role": "system", "content": system})
    if start := row.get("reply_start"):
        messages.append({"role": "assistant", "content": start})
    return messages


def exchange_of(row: Mapping[str, Any]) -> Exchange:
    """The row's question and its own reply."""
    start = row.get("reply_start")
    return Exchange(row.get("system"), row["question"], row.get("reasoning"), row["answer"], start)
