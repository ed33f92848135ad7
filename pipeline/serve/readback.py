"""Read a new model back from Ollama: is it the file, the template and the settings it was given?"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.chat import Message
from pipeline.engines.ollama import REPEAT_LIMIT, OllamaServer
from pipeline.errors import OllamaRefused, PipeError
from pipeline.run import Emit, Note
from pipeline.run.files import sha256_of
from pipeline.serve.names import model_blob


@dataclass(frozen=True)
class Job:
    """One file that becomes one model."""

    name: str
    type: str
    file: Path
    digest: str
    """`sha256:` and hex."""
    request: dict[str, Any]
    """The body of /api/create."""
    row: dict[str, Any]
    """What it is asked at the end: `question`, and `system` where there is one."""
    options: dict[str, Any]
    """How it is asked: temperature, seed, num_predict."""


def check_shown(job: Job, shown: dict[str, Any]) -> None:
    """Raises PipeError where the server shows anything but what it was given."""
    wanted = job.request["parameters"]
    differs = [
        what
        for what, same in {
            "weights": model_blob(shown)[1] == job.digest,
            "template": shown.get("template") == job.request["template"],
            "parameters": _shown_parameters(shown) == wanted,
            "license": shown.get("license") == job.request["license"],
            "thinking": "thinking" in (shown.get("capabilities") or []),
        }.items()
        if not same
    ]
    if differs:
        raise PipeError(
            f"Ollama made {job.name}, but not as asked; it differs in: {', '.join(differs)}.",
            f"See: ollama show --modelfile {job.name}. Remove it: ollama rm {job.name}",
        )


def _shown_parameters(shown: dict[str, Any]) -> dict[str, Any]:
    """/api/show prints `name value` lines, values as Go writes them; a list takes several."""
    found: dict[str, Any] = {}
    for line in str(shown.get("parameters") or "").splitlines():
        key, _, text = line.partition(" ")
        try:
            value = json.loads(text)
        except ValueError:
            value = text.strip()
        if key == "stop":
            found.setdefault(key, []).append(value)
        else:
            found[key] = value
    return found


def check_blob(server: OllamaServer, job: Job, shown: dict[str, Any]) -> str:
    """Hash a file that the server had already, where it can be read from here.

    The server itself never hashes one again, so rotten bytes would be served for ever.
    """
    path = Path(model_blob(shown)[0])
    try:
        if server.is_loopback and f"sha256:{sha256_of(path)}" != job.digest:
            raise PipeError(
                f"The file that Ollama has for {job.name} is damaged: {path.name}.",
                f"Remove it, then send it again: ollama rm {job.name} && pipe register",
            )
    except OSError:
        return "was there, could not be read from here"
    return "was there, hashed again" if server.is_loopback else "was there"


def ask(server: OllamaServer, job: Job, emit: Emit) -> dict[str, Any]:
    """One question and its whole reply, as greedy as Ollama can be."""
    messages: list[Message] = [{"role": "user", "content": job.row["question"]}]
    if system := job.row.get("system"):
        messages.insert(0, {"role": "system", "content": system})
    try:
        reply = server.chat(job.name, messages, options=job.options)
    except OllamaRefused as refusal:
        if REPEAT_LIMIT not in refusal.message:
            raise
        emit(Note(f"{job.name} said one token over and over, until Ollama stopped it.", True))
        return {**job.row, "thinking": "", "content": "", "done_reason": REPEAT_LIMIT}
    if reply.done_reason != "stop":
        emit(
            Note(f"{job.name} did not end its reply in {job.options['num_predict']} tokens.", True)
        )
    return {
        **job.row,
        "thinking": reply.thinking,
        "content": reply.content,
        "done_reason": reply.done_reason,
    }
