"""Identity: what Ollama runs is the exported file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.check.gates import Finding
from pipeline.check.subject import Subject
from pipeline.engines.gguf_file import different_tensors, read_gguf
from pipeline.engines.ollama import OllamaServer, model_blob
from pipeline.errors import PipeError

_REWRITES = ((0, 30), (0, 34))
"""From the first of these versions to before the second, a file is rewritten at create."""
_REWRITTEN = "rewritten"
"""How the serve manifest begins to say so of a model's weights."""


def served_blob(server: OllamaServer, name: str) -> tuple[Path, str]:
    """Where the server keeps a model's weights, and their hex sha256. Raises PipeError for none."""
    path, digest = model_blob(server.show(name))
    if not path:
        raise PipeError(f"Ollama shows no GGUF for {name}.", f"See: ollama show --modelfile {name}")
    return Path(path), digest.removeprefix("sha256:")


def served_file(subject: Subject) -> Finding:
    """What Ollama runs is the exported file, by its sha256.

    Ollama 0.30 to 0.33 rewrote a file when it made the model: of such a one, every tensor and what
    a runner reads of the metadata must be the same.
    """
    run = subject.run.run
    export = run.require("export")
    wrong, compared = [], []
    for model in run.require("serve").facts["models"]:
        name, file = model["name"], subject.files[model["type"]]
        blob, digest = served_blob(subject.ollama, name)
        expected = export.outputs[file.name].sha256
        if digest == expected:
            compared.append(f"{name} is {file.name} by sha256")
        elif (fault := _difference(subject, model, blob)) is None:
            compared.append(
                f"{name} is {file.name}, rewritten with every tensor, the tokenizer and the "
                "template the same"
            )
        else:
            what = f"{name} is {digest[:12]}..., {file.name} is {expected[:12]}..."
            wrong.append(f"{what}: {fault}")
    return "; ".join(compared) or "sha256 of the exported files", wrong


def _difference(subject: Subject, model: Mapping[str, Any], blob: Path) -> str | None:
    """What is not as in the exported file; None for a file that a server rewrote faithfully.

    Raises PipeError where a server that rewrites has a file that cannot be read from here.
    """
    rewrites = _REWRITES[0] <= subject.version < _REWRITES[1]
    # one that was registered then stays as it was when the server is updated
    if not rewrites and not str(model.get("weights", "")).startswith(_REWRITTEN):
        return "it is another file"
    file = subject.files[model["type"]]
    if not (subject.ollama.is_loopback and blob.is_file()):
        raise PipeError(
            f"This Ollama rewrote {file.name}, and its own file cannot be read from here.",
            "Run the check where the server runs, or update Ollama to 0.34 and register again.",
        )
    if different := different_tensors(file, blob):
        return f"{len(different)} tensors differ, {different[0]} first"
    if keys := _different_keys(file, blob):
        return f"the metadata differ: {', '.join(keys[:3])}"
    return None


def _different_keys(a: Path, b: Path) -> list[str]:
    """Keys of the metadata that a runner reads, and that are not the same in both; sorted."""
    ours, theirs = read_gguf(a).metadata, read_gguf(b).metadata
    kind = ours.get("general.architecture")
    read = ("tokenizer.", f"{kind}.", "general.architecture")
    keys = (key for key in ours.keys() | theirs.keys() if key.startswith(read))
    return sorted(key for key in keys if ours.get(key) != theirs.get(key))
