"""Read a new model back from Ollama: is it the file, the template and the settings it was given?"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.chat import Message
from pipeline.engines.gguf_file import different_tensors
from pipeline.engines.ollama import REPEAT_LIMIT, OllamaServer, model_blob
from pipeline.errors import OllamaRefused, PipeError
from pipeline.run import Emit, Note


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


EXPORTED = "the exported file"
EQUAL = "rewritten by the server, every tensor equal"
UNCOMPARED = "rewritten by the server, could not be compared"
_REWRITTEN = "verifying conversion"
"""What Ollama 0.30 to 0.33 says after it has passed an uploaded GGUF through llama-quantize."""


def weights_of(
    server: OllamaServer, job: Job, shown: Mapping[str, Any], steps: Sequence[str] = ()
) -> str:
    """What the shown model's weights are to the exported file; empty for others.

    `steps` are the status lines of its creation: only a server that says so may have rewritten a
    file that cannot be read from here.
    """
    path, digest = model_blob(shown)
    if digest == job.digest:
        return EXPORTED
    if not (path and server.is_loopback and os.access(path, os.R_OK)):
        return UNCOMPARED if _REWRITTEN in steps else ""
    try:
        return "" if different_tensors(job.file, Path(path)) else EQUAL
    except PipeError:  # torn, or no GGUF
        return ""


def check_shown(job: Job, shown: Mapping[str, Any], weights: str) -> None:
    """Raises PipeError where the server shows anything but what it was given."""
    wanted = job.request["parameters"]
    differs = [
        what
        for what, same in {
            "weights": weights,
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
            "Another version of Ollama may do it: https://ollama.com/download. "
            "Then run: pipe register",
        )


def _shown_parameters(shown: Mapping[str, Any]) -> dict[str, Any]:
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
