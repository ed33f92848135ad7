"""Identity: what Ollama runs is the exported file."""

import re
from pathlib import Path

from pipeline.check.gates import Finding
from pipeline.check.subject import Subject
from pipeline.engines.gguf_file import different_tensors
from pipeline.engines.ollama import OllamaServer
from pipeline.errors import PipeError

_REWRITES = ((0, 30), (0, 34))
"""From the first of these versions to before the second, a file is rewritten at create."""
_FROM = re.compile(r"^FROM (?P<path>.*sha256[-:](?P<digest>[0-9a-f]{64}))\s*$", re.MULTILINE)


def served_blob(server: OllamaServer, name: str) -> tuple[Path, str]:
    """Where the server keeps a model's weights, and their hex sha256. Raises PipeError for none."""
    found = _FROM.search(str(server.show(name).get("modelfile", "")))
    if found is None:
        raise PipeError(f"Ollama shows no GGUF for {name}.", f"See: ollama show --modelfile {name}")
    return Path(found["path"]), found["digest"]


def served_file(subject: Subject) -> Finding:
    """What Ollama runs is the exported file: the same sha256, or the same tensors.

    Ollama 0.30 to 0.33 rewrote a file when it made the model: then every tensor is compared.
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
        elif (fault := _difference(subject, file, blob)) is None:
            compared.append(f"{name} is {file.name}, rewritten with every tensor the same")
        else:
            what = f"{name} is {digest[:12]}..., {file.name} is {expected[:12]}..."
            wrong.append(f"{what}: {fault}")
    return "; ".join(compared) or "sha256 of the exported files", wrong


def _difference(subject: Subject, file: Path, blob: Path) -> str | None:
    """What differs in the tensors of another file; None where all are the same.

    Raises PipeError where a server that rewrites has a file that cannot be read from here.
    """
    if subject.ollama.is_loopback and blob.is_file():
        different = different_tensors(file, blob)
        return f"{len(different)} tensors differ, {different[0]} first" if different else None
    if _REWRITES[0] <= subject.version < _REWRITES[1]:
        raise PipeError(
            f"This Ollama rewrote {file.name}, and its own file cannot be read from here.",
            "Run the check where the server runs, or update Ollama to 0.34.",
        )
    return "it is another file"
