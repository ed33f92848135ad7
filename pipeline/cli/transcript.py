"""What was said in `pipe chat`, and its two forms on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ValidationError

from pipeline.errors import PipeError
from pipeline.run.files import write_text

if TYPE_CHECKING:
    from pipeline.chat import Message

_FORMS = (".md", ".json")
_LARGEST = 64 << 20


@dataclass(frozen=True)
class Exchange:
    question: str
    answer: str
    thinking: str = ""


class _Said(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str
    thinking: str = ""


class _Saved(BaseModel):
    messages: tuple[_Said, ...]


@dataclass
class Transcript:
    """A conversation; of earlier replies the model is shown the answers only."""

    system: str = ""
    exchanges: list[Exchange] = field(default_factory=list)

    def asking(self, question: str) -> list[Message]:
        """The conversation that ends with this question; exchanges without an answer are no part
        of it."""
        messages: list[Message] = []
        if self.system:
            messages.append({"role": "system", "content": self.system})
        for exchange in (each for each in self.exchanges if each.answer):
            messages.append({"role": "user", "content": exchange.question})
            messages.append({"role": "assistant", "content": exchange.answer})
        return [*messages, {"role": "user", "content": question}]

    def as_json(self, model: str) -> str:
        messages: list[dict[str, str]] = []
        if self.system:
            messages.append({"role": "system", "content": self.system})
        for each in self.exchanges:
            messages.append({"role": "user", "content": each.question})
            reply = {"role": "assistant", "content": each.answer}
            messages.append(reply | ({"thinking": each.thinking} if each.thinking else {}))
        return json.dumps({"model": model, "messages": messages}, indent=2, ensure_ascii=False)

    def as_markdown(self, model: str) -> str:
        lines = [f"# A conversation with {model}", ""]
        if self.system:
            lines += [f"System: {self.system}", ""]
        for each in self.exchanges:
            lines += ["## Question", "", each.question, "", "## Reply", ""]
            if each.thinking:
                lines += ["<details><summary>Thinking</summary>", "", each.thinking, ""]
                lines += ["</details>", ""]
            lines += [each.answer, ""]
        return "\n".join(lines)

    def save(self, path: Path, model: str, *, overwrite: bool = False) -> None:
        """Markdown or JSON by the name's end; whole, or the file stays as it is.

        Raises PipeError for another end, for a file that is there unless `overwrite`, and where
        it cannot be written.
        """
        if path.suffix not in _FORMS:
            raise PipeError(f"{path} ends neither in .md nor in .json.", "Name one of these.")
        if path.exists() and not overwrite:
            raise PipeError(f"{path} is there already.", f"To replace it: /save! {path}")
        text = self.as_json(model) if path.suffix == ".json" else self.as_markdown(model)
        try:
            write_text(path, text.rstrip() + "\n")
        except (OSError, ValueError) as error:
            raise PipeError(f"{path} could not be written: {error}.", "Name another.") from None


def load(path: Path) -> Transcript:
    """A conversation that `save` wrote as JSON. Raises PipeError for anything else."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        return _read(_Saved.model_validate_json(path.read_bytes(), strict=True))
    except (OSError, ValueError) as error:
        raise PipeError(
            f"{path} holds no conversation: {_reason(error)}.",
            "/load takes what /save wrote as .json.",
        ) from None


def _reason(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def _read(saved: _Saved) -> Transcript:
    messages, found = list(saved.messages), Transcript()
    if messages and messages[0].role == "system":
        found.system = messages.pop(0).content
    if len(messages) % 2:
        raise ValueError("a question has no reply")
    for question, reply in zip(messages[::2], messages[1::2], strict=True):
        if (question.role, reply.role) != ("user", "assistant"):
            raise ValueError("questions and replies do not take turns")
        found.exchanges.append(Exchange(question.content, reply.content, reply.thinking))
    return found
