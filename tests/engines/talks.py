"""Conversations, and what is heard of a partner's reply."""

from pipeline.chat import Message, chat_format
from pipeline.engines.talk import Ending, Piece, Remark

FORMAT = chat_format("llama3.2-reasoning")
GREEDY = {"temperature": 0.0, "top_p": 1.0, "repeat_penalty": 1.0}
HELLO: list[Message] = [{"role": "user", "content": "Hello"}]


def chats(*questions: str) -> list[list[Message]]:
    """A conversation of each question alone."""
    return [talk(question) for question in questions]


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
