"""Give the exported files to Ollama, and prove that it serves those files as they are meant."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from pipeline.chat import chat_format
from pipeline.engines.ollama import OllamaServer
from pipeline.errors import ChangedInput, OllamaRefused, PipeError
from pipeline.recipe import Recipe
from pipeline.run import Emit, Manifest, Progress, Run
from pipeline.serve.modelfile import parameters
from pipeline.serve.names import model_blob, model_names, our_digests
from pipeline.serve.readback import Job, ask, check_blob, check_shown

MINIMUM = (0, 17, 1)
"""Older servers read past a GGUF's end while they create a model: CVE-2026-7482."""
QUESTION = "What is 2 + 3?"
_REPLY_TOKENS = 512
_UPLOAD_EVENTS_S = 0.25


@dataclass(frozen=True)
class RegisterOptions:
    name: str | None = None
    """Instead of the recipe's serve.name."""
    force: bool = False
    """Replace a model of that name, whoever made it."""
    allow_remote: bool = False
    """Upload to a server on another machine."""


def registration_command(run: Run) -> str:
    """The one command that registers this run's export later."""
    return shlex.join(["pipe", "register", "-r", str(run.root / "recipe.yaml"), "--run", run.name])


def register(recipe: Recipe, run: Run, emit: Emit, options: RegisterOptions) -> Manifest:
    """Make one Ollama model per exported file, read each back and ask it one question.

    A model of the same name is replaced only with `force`, or where a run here made it.
    Raises OllamaUnreachable, OllamaRefused, or PipeError for what reads back otherwise.
    """
    exported = run.require("export")
    format = chat_format(recipe.chat.format)
    if dict(exported.chat_format) != format.fingerprint():
        raise ChangedInput(
            f"{run.folder('export')} was made for another chat format.", "Run: pipe export --force"
        )
    server = OllamaServer.from_environment()
    version = _check_server(server, options)
    name = options.name or recipe.serve.name
    jobs = _jobs(recipe, run, exported, name)
    ours = our_digests(run, exported)
    for job in jobs:
        _check_replaceable(server, job, ours, options.force)
    with run.publish("serve") as draft:
        models = [_make(server, job, emit) for job in jobs]
        draft.manifest = Manifest(
            stage="serve",
            section={"serve": recipe.serve.model_dump(mode="json"), "registered_as": name},
            inputs=run.input_entry("export"),
            chat_format=format.fingerprint(),
            seed=recipe.seed,
            versions={"ollama": version},
            facts={"models": models, "parameters": parameters(recipe, format)},
        )
    return run.require("serve")


def _check_server(server: OllamaServer, options: RegisterOptions) -> str:
    """The server's version. Raises PipeError where it is too far away or too old."""
    if not server.is_loopback and not options.allow_remote:
        raise PipeError(
            f"OLLAMA_HOST names {server.url}, which is not this machine.",
            "To upload the model there: pipe register --allow-remote",
        )
    version = server.version()
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if not numbers or tuple(map(int, numbers.groups())) < MINIMUM:
        needed = ".".join(map(str, MINIMUM))
        raise PipeError(
            f"Ollama {version or 'of no version'} answers at {server.url}; {needed} or newer is "
            "needed, because older ones read past a model file's end (CVE-2026-7482).",
            "Update it: https://ollama.com/download",
        )
    return version


def _jobs(recipe: Recipe, run: Run, exported: Manifest, name: str) -> list[Job]:
    format = chat_format(recipe.chat.format)
    files: dict[str, str] = dict(exported.facts["files"])
    if missing := [kind for kind in recipe.export.quantize if kind not in files]:
        raise ChangedInput(
            f"{run.folder('export')} holds no {', '.join(missing)}.", "Run: pipe export --force"
        )
    names = model_names(name, recipe.export.quantize)
    row = _question(run)
    limit = min(recipe.eval.max_new_tokens, _REPLY_TOKENS)
    options = {"temperature": 0, "seed": recipe.seed, "num_predict": limit}
    jobs = []
    for kind, model in names.items():
        file = files[kind]
        digest = f"sha256:{exported.outputs[file].sha256}"
        request = {
            "model": model,
            "files": {file: digest},
            "template": format.ollama_template,
            "parameters": parameters(recipe, format),
            "license": exported.facts["license"],
        }
        path = run.folder("export") / file
        jobs.append(Job(model, kind, path, digest, request, row, options))
    return jobs


def _question(run: Run) -> dict[str, Any]:
    """`question`, and `system` where there is one, of the first test row: training has not seen it.

    Without prepared data, a question of our own.
    """
    path = run.folder("data") / "test.jsonl"
    try:
        with path.open(encoding="utf-8") as file:
            line = file.readline()
        row = json.loads(line) if line.strip() else {"question": QUESTION}
        asked = {"question": str(row["question"]), "system": row.get("system")}
    except FileNotFoundError:
        return {"question": QUESTION}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ChangedInput(f"{path} does not hold rows.", "Run: pipe prepare --force") from None
    return {key: value for key, value in asked.items() if value}


def _check_replaceable(server: OllamaServer, job: Job, ours: set[str], force: bool) -> None:
    shown = server.find(job.name)
    if shown is None or force or model_blob(shown)[1] in ours:
        return
    raise PipeError(
        f"Ollama at {server.url} already has a model {job.name} that no run here made.",
        "Replace it: pipe register --force. Or choose another: pipe register --name NAME",
    )


def _make(server: OllamaServer, job: Job, emit: Emit) -> dict[str, Any]:
    """Upload, create, read back, ask; what the manifest says of this model."""
    sent = server.upload_blob(job.file, job.digest, _upload_progress(job, emit))
    _create(server, job, emit)
    server.unload(job.name)
    shown = server.show(job.name)
    check_shown(job, shown)
    return {
        "name": job.name,
        "type": job.type,
        "digest": job.digest,
        "blob": "uploaded" if sent else check_blob(server, job, shown),
        "capabilities": sorted(shown["capabilities"]),
        "asked": ask(server, job, emit),
    }


def _upload_progress(job: Job, emit: Emit) -> Callable[[int], None]:
    started = last = monotonic()
    total = job.file.stat().st_size

    def progress(sent: int) -> None:
        nonlocal last
        now = monotonic()
        if sent < total and now - last < _UPLOAD_EVENTS_S:
            return
        last = now
        rate = sent / max(now - started, 1e-6) / 1e6
        emit(Progress(f"upload {job.file.name}", sent, total, "B", {"rate": f"{rate:.0f} MB/s"}))

    return progress


def _create(server: OllamaServer, job: Job, emit: Emit) -> None:
    """Raises OllamaRefused saying in the server's words what went wrong, and what stands now."""
    before = _digest_at(server, job.name)
    steps: list[str] = []

    def on_status(status: str) -> None:
        steps.append(status)
        emit(Progress(f"create {job.name}", len(steps), None, "steps", {"status": status}))

    try:
        server.create(job.request, on_status)
    except OllamaRefused as refusal:
        now = _digest_at(server, job.name)
        if now != before:
            stands = f"{job.name} is there with the weights {now or 'of nothing'}, unchecked."
        elif before:
            stands = f"The model {job.name} that was there before is as it was."
        else:
            stands = f"No model {job.name} was made."
        raise OllamaRefused(f"{refusal.message} {stands}", refusal.hint) from refusal


def _digest_at(server: OllamaServer, name: str) -> str:
    shown = server.find(name)
    return model_blob(shown)[1] if shown else ""
