"""Give the exported files to Ollama, and prove that it serves those files as they are meant."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.chat import chat_format
from pipeline.engines.ollama import OllamaServer, model_blob
from pipeline.errors import ChangedInput, OllamaUnreachable, PipeError
from pipeline.plans import planned
from pipeline.recipe import Recipe
from pipeline.run import Emit, Manifest, Run
from pipeline.serve.blobs import given_blobs, last_served, tell_unused
from pipeline.serve.make import Maker
from pipeline.serve.modelfile import parameters
from pipeline.serve.names import model_names
from pipeline.serve.readback import Job, weights_of

MINIMUM = (0, 17, 1)
"""Older servers read past a GGUF's end while they create a model: CVE-2026-7482."""
QUESTION = "What is 2 + 3?"
_REPLY_TOKENS = 512


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
    return f"pipe register {run.options}"


def register(recipe: Recipe, run: Run, emit: Emit, options: RegisterOptions) -> Manifest:
    """Make one Ollama model per exported file, read each back and ask it one question.

    A model of the same name is replaced only with `force`, or where a run here made it, and is
    put back where the new one fails. Raises OllamaUnreachable, OllamaRefused, or PipeError for what
    reads back otherwise, each saying which models stand; the same command goes on from there.
    """
    exported = run.require("export")
    format = chat_format(recipe.chat.format, thinks=recipe.chat.thinking)
    if dict(exported.chat_format) != format.fingerprint():
        raise ChangedInput(
            f"{run.folder('export')} was made for another chat format.", "Run: pipe export --force"
        )
    server = OllamaServer.from_environment()
    version = _check_server(server, options)
    name = options.name or recipe.serve.name
    jobs = _jobs(recipe, run, exported, name)
    given = given_blobs(run, exported)
    for job in jobs:
        _check_replaceable(server, job, given, options.force)
    with run.publish("serve") as draft:
        maker = Maker(server, emit, options.force, last_served(run))
        models = _made(maker, jobs, given)
        given = {model["served"]: 0 for model in models} | given
        plan = planned("serve", recipe, run)
        draft.manifest = replace(
            plan,
            section={**plan.section, "registered_as": name},
            inputs=run.input_entry("export"),
            versions={"ollama": version},
            facts={
                "models": models,
                "parameters": parameters(recipe, format),
                "given": [{"digest": key, "bytes": given[key]} for key in sorted(given)],
            },
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
    format = chat_format(recipe.chat.format, thinks=recipe.chat.thinking)
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


def _check_replaceable(
    server: OllamaServer, job: Job, ours: Mapping[str, int], force: bool
) -> None:
    shown = server.find(job.name)
    if shown is None or force or model_blob(shown)[1] in ours or weights_of(server, job, shown):
        return
    raise PipeError(
        f"Ollama at {server.url} already has a model {job.name} that no run here made.",
        "Replace it: pipe register --force. Or choose another: pipe register --name NAME",
    )


def _made(maker: Maker, jobs: list[Job], given: Mapping[str, int]) -> list[dict[str, Any]]:
    """The models; what the server keeps without a use is told, also after it refused one."""
    try:
        models = maker.make_all(jobs)
    except OllamaUnreachable:
        raise
    except PipeError:
        tell_unused(maker.server, given, maker.emit)
        raise
    served = {model["served"] for model in models}
    others = {digest: size for digest, size in given.items() if digest not in served}
    tell_unused(maker.server, others, maker.emit)
    return models
