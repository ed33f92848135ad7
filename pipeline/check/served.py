"""The served model: what any client of Ollama gets from it."""

import json
from collections.abc import Sequence
from typing import Any

from pipeline.chat import ChatFormat
from pipeline.check.gates import Finding
from pipeline.check.subject import WHOLE, Subject
from pipeline.engines.completion import Completion
from pipeline.engines.ollama import ChatReply
from pipeline.errors import PipeError

TIE = 0.25
"""Logits. Two engines add the same numbers in another order: below this lead either may win."""
_VERSIONS = {
    (0, 9): "answers with thinking apart",
    (0, 17, 1): "makes models safely from a file",
    (0, 30): "runs files by the llama.cpp that is checked here",
}
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"even": {"type": "boolean"}},
    "required": ["even"],
}
_FEW = 3
_HELD = 12
"""Characters: a closing tag and the newlines around it."""


def version(subject: Subject) -> Finding:
    """The server is new enough for what the model needs of it."""
    found = subject.version
    if not any(found):
        raise PipeError("This Ollama says no version.", "It may be a build of one's own.")
    said = ".".join(map(str, found))
    wrong = [
        f"Ollama {said} is older than {'.'.join(map(str, since))}, which first {what}"
        for since, what in _VERSIONS.items()
        if found < since
    ]
    return f"Ollama {said}; {'.'.join(map(str, max(_VERSIONS)))} is asked for", wrong


def stops(subject: Subject) -> Finding:
    """Each reply ends by itself."""
    replies, limit = subject.served_replies[:WHOLE], max(subject.limits)
    cut = [number for number, reply in enumerate(replies, 1) if _cut(reply)]
    wrong = [
        f"question {number}: {_shown(reply)} does not end: {reply.done_reason or 'cut off'}"
        for number, reply in enumerate(replies, 1)
        if reply.done_reason != "stop" and number not in cut
    ]
    said = f"{len(replies)} greedy replies of at most {limit} tokens"
    said += f", {len(cut)} of them cut by that while they think" if cut else ""
    if len(cut) > len(replies) // 20 and subject.part is None and not wrong:
        raise _too_short(subject)
    wrong += [f"question {number}: it still thinks at its limit, {_end(subject)}" for number in cut]
    return _most(said, replies, wrong)


def thinks(subject: Subject) -> Finding:
    """Each has one thinking block in message.thinking, and no part of it in message.content.

    A reply that its limit cut while it thinks is not counted: whether replies end is another gate.
    """
    if not subject.capable:
        return "capabilities", [f"Ollama does not know that {subject.name} thinks"]
    asked = enumerate(subject.served_replies[:WHOLE], 1)
    replies = {number: reply for number, reply in asked if not _cut(reply)}
    if not replies:
        raise _too_short(subject)
    wrong = [
        f"question {number}: {_shown(reply)}"
        for number, reply in replies.items()
        if _tagged(subject, reply) or not (reply.thinking.strip() and reply.content.strip())
    ]
    cut = min(WHOLE, len(subject.questions)) - len(replies)
    left = f", without {cut} cut while they think" if cut else ""
    said = f"thinking and content of {len(replies)} replies{left}"
    return _most(said, list(replies.values()), wrong)


def answers_directly(subject: Subject) -> Finding:
    """think=false gives an answer that stops, with no thinking and no tag in it."""
    asked, wrong = subject.questions[:5], []
    for conversation in asked:
        reply = subject.ask(conversation, think=False)
        ended = reply.done_reason == "stop" and bool(reply.content.strip())
        if not ended or _tagged(subject, reply) or reply.thinking.strip():
            wrong.append(f"{_shown(reply)}, ended by: {reply.done_reason}")
    return f"{len(asked)} replies with think=false", wrong


def structured(subject: Subject) -> Finding:
    """JSON by a schema comes after thinking, and only in the content."""
    asked, wrong, cut = subject.questions[:_FEW], [], 0
    for conversation in asked:
        reply = subject.ask(conversation, format=_SCHEMA)
        if _cut(reply):
            cut += 1
        elif not _valid(reply.content):
            wrong.append(f"content is {reply.content[:60]!r}, no JSON by the schema")
        elif not reply.thinking.strip():
            wrong.append("the JSON comes without thinking")
        elif reply.done_reason != "stop":
            wrong.append(f"the JSON does not end: {reply.content[:60]!r}")
    if cut == len(asked):
        raise _too_short(subject)
    left = f", {cut} more cut by their limit while they think" if cut else ""
    return f"{len(asked) - cut} replies by a JSON schema{left}", wrong


def streaming(subject: Subject) -> Finding:
    """A reply in pieces is the reply in one piece; a first difference may be a near tie."""
    asked = subject.questions[:_FEW]
    wrong: list[str] = []
    ties: list[str] = []
    for number, conversation in enumerate(asked):
        whole = subject.ask(conversation, stream=False)
        pieces = subject.ask(conversation)
        if (whole.thinking, whole.content) == (pieces.thinking, pieces.content):
            continue
        gap = _gap(subject, number, _text(subject.tags, whole), _text(subject.tags, pieces))
        said = f"question {number + 1} differs where the lead was {gap:.4f} logits"
        (ties if gap < TIE else wrong).append(said)
    return "; ".join([f"{len(asked)} replies, streamed and whole", *ties]), wrong


def greedy_answers(subject: Subject) -> Finding:
    """llama-cpp-python and Ollama answer alike, up to a first token that was a near tie."""
    wrong: list[str] = []
    ties: list[str] = []
    pairs = zip(subject.own_answers, subject.served_replies, strict=True)
    for number, (mine, theirs) in enumerate(pairs):
        if same_reply(mine, theirs, subject.tags):
            continue
        gap = _gap(subject, number, mine.text, _text(subject.tags, theirs))
        said = f"question {number + 1} differs where the lead was {gap:.4f} logits"
        (ties if gap < TIE else wrong).append(said)
    compared = f"{len(subject.questions)} greedy replies, {len(ties)} near ties under {TIE} logits"
    return "; ".join([compared, *ties]), wrong


def same_reply(mine: Completion, theirs: ChatReply, format: ChatFormat) -> bool:
    """Whether llama.cpp's reply and the server's are the same text, as a whole or in their parts.

    A server has split its reply, and what it trimmed is not known; a malformed one it may split
    elsewhere. Of one that the limit cut it may hold back what could begin a tag.
    """
    if mine.stopped != (theirs.done_reason == "stop"):
        return False
    same = _same if mine.stopped else _same_beginning
    parts = same(mine.reply.thinking, theirs.thinking.strip())
    return same(mine.text.strip(), _text(format, theirs).strip()) or (
        parts and same(mine.reply.answer, theirs.content.strip())
    )


def _same(a: str, b: str) -> bool:
    return a == b


def _same_beginning(a: str, b: str) -> bool:
    shorter, longer = sorted((a, b), key=len)
    return longer.startswith(shorter) and len(longer) - len(shorter) <= _HELD


def _gap(subject: Subject, number: int, mine: str, theirs: str) -> float:
    """The lead in logits of llama.cpp's first choice where two texts part.

    Without the file it is not known: infinite.
    """
    if "file" not in subject.parts:
        return float("inf")
    own = subject.own_answers[number]
    common = next(
        (n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b),
        min(len(mine), len(theirs)),
    )
    before = len(subject.llama.tokenize(own.text[:common], add_bos=False))
    # the letters that agree may end inside a token: the parting lies there or one later
    return min(own.gaps[max(0, before - 1) : before + 1], default=float("inf"))


def _text(format: ChatFormat, reply: ChatReply) -> str:
    """What the model wrote, as far as the server's split of it tells."""
    if not reply.thinking.strip():
        return reply.content
    return format.target(reply.thinking, reply.content)


def _tagged(subject: Subject, reply: ChatReply) -> bool:
    tags = (subject.tags.think, subject.tags.end_think)
    return any(tag in part for tag in tags for part in (reply.thinking, reply.content))


def _cut(reply: ChatReply) -> bool:
    """Whether the limit ended it while it was thinking: nothing is known of what would follow."""
    return reply.done_reason == "length" and bool(reply.thinking.strip() and not reply.content)


def _end(subject: Subject) -> str:
    """What limits replies."""
    if subject.part is None:
        return f"{max(subject.limits)} tokens"
    return f"where the context of {subject.n_ctx} tokens ends"


def _too_short(subject: Subject) -> PipeError:
    hint = "Ask it something short: ollama run NAME"
    if subject.part is not None:
        hint = "Raise serve.num_ctx, then: pipe register --force && pipe check; or train longer."
    return PipeError(f"Replies still think at their limit, {_end(subject)}.", hint)


def _valid(content: str) -> bool:
    try:
        found = json.loads(content)
    except ValueError:
        return False
    return isinstance(found, dict) and isinstance(found.get("even"), bool)


def _shown(reply: ChatReply) -> str:
    return f"thinking {reply.thinking[:50]!r}, content {reply.content[:50]!r}"


def _most(compared: str, replies: Sequence[ChatReply], wrong: list[str]) -> Finding:
    """A small or half-trained model may get one reply in twenty wrong."""
    allowed = len(replies) // 20
    said = f"{compared}, {len(replies) - len(wrong)} as they must be; {allowed} may fail"
    return said, wrong if len(wrong) > allowed else []
