"""The files that an Ollama server keeps: what our runs gave it, who uses them, are they whole?"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pipeline.engines.ollama import OllamaServer, full_name, model_blob
from pipeline.errors import ChangedInput, OllamaRefused, PipeError
from pipeline.run import Emit, Manifest, Note, Run
from pipeline.run.files import sha256_of
from pipeline.run.manifest import NAME, read_manifest

HASHED = "was there, hashed again"
UNREAD = "was there, could not be read from here"
FAR = "was there"


def given_blobs(run: Run, exported: Manifest) -> dict[str, int]:
    """Digest -> bytes of every file that this export or any run beside it made for Ollama.

    0 bytes where the size is not known: the server made the file of one of ours.
    """
    given: dict[str, int] = {}
    for manifest in _manifests(run, "serve"):
        models = manifest.facts.get("models", [])
        given |= {str(each.get("served", each["digest"])): 0 for each in models}
        given |= {each["digest"]: each["bytes"] for each in manifest.facts.get("given", [])}
    for manifest in (*_manifests(run, "export"), exported):
        given |= {
            f"sha256:{entry.sha256}": entry.bytes
            for name, entry in manifest.outputs.items()
            if name.endswith(".gguf")
        }
    return given


def last_served(run: Run) -> dict[str, str]:
    """Name -> digest that it ran on when this run, or any beside it, last registered it whole."""
    paths = run.root.parent.glob(f"*/serve/{NAME}")
    oldest_first = sorted(paths, key=lambda path: path.stat().st_mtime_ns)
    models = (each for m in _readable(oldest_first) for each in m.facts.get("models", []))
    return {str(each["name"]): str(each.get("served", each["digest"])) for each in models}


def users_of_blobs(server: OllamaServer) -> dict[str, list[str]]:
    """Digest -> the models that run on that file. Raises OllamaRefused for one not shown."""
    users: dict[str, list[str]] = {}
    for model in server.tags():
        name = str(model["name"])
        if shown := server.find(name):
            users.setdefault(model_blob(shown)[1], []).append(name)
    return users


def stored(server: OllamaServer, digest: str, names: frozenset[str], force: bool) -> str:
    """How a file that the server has already was looked at; empty where it was removed.

    The server never hashes one again, so rotten bytes would be served for ever. With `force`, one
    that only models of `names` use is removed with them. Raises PipeError for any other, and where
    the server does not show who uses it.
    """
    if not server.is_loopback:
        return FAR
    folder = _folder(server)
    path = folder / digest.replace(":", "-") if folder else None
    if path is None or (found := hash_of(path)) is None:
        return UNREAD
    if found == digest:
        return HASHED
    try:
        users = users_of_blobs(server).get(digest, [])
    except OllamaRefused:
        users = []  # a model that is not shown may run on it too
    if force and users and names.issuperset(map(full_name, users)):
        for user in users:
            server.delete(user)
        return ""
    raise damaged(path, users, names)


def hash_of(path: Path) -> str | None:
    """`sha256:` and hex, or None for a file that cannot be read from here."""
    try:
        return f"sha256:{sha256_of(path)}"
    except OSError:
        return None


def damaged(path: Path, users: list[str], names: frozenset[str]) -> PipeError:
    """What to do about a file whose bytes are no longer those of its digest."""
    if not users:
        cure = f"Remove it, then run the same command again: rm {shlex.quote(str(path))}"
    elif names.issuperset(map(full_name, users)):
        cure = "Remove it and send it again: pipe register --force"
    else:
        cure = f"Remove all that use it, and send it again: ollama rm {' '.join(users)}"
        cure += " && pipe register"
    used = f"; {', '.join(users)} run on it" if users else ""
    return PipeError(f"A file that Ollama keeps is damaged: {path.name}{used}.", cure)


def tell_unused(server: OllamaServer, given: Mapping[str, int], emit: Emit) -> None:
    """Name the files of ours that the server still has and no model of it uses."""
    try:
        unused = _unused(server, given)
    except PipeError as error:
        emit(Note(f"What Ollama keeps without a use could not be seen: {error.message}", True))
        return
    if unused:
        text = (
            f"Ollama keeps files that runs here gave it and no model uses: {', '.join(unused)}. "
            "It removes those over an hour old when it starts, unless OLLAMA_NOPRUNE is set: "
            "restart `ollama serve`."
        )
        emit(Note(text, warning=True))


def _unused(server: OllamaServer, given: Mapping[str, int]) -> list[str]:
    """Each as the start of its digest and its size, where that is known."""
    there = [digest for digest in given if server.has_blob(digest)]
    users = users_of_blobs(server) if there else {}
    return [
        f"{digest[:19]}..." + (f" ({given[digest] / 1e6:,.1f} MB)" if given[digest] else "")
        for digest in there
        if digest not in users
    ]


def _folder(server: OllamaServer) -> Path | None:
    """Where the server keeps its files, by the first model that shows it."""
    for model in server.tags():
        try:
            path, _ = model_blob(server.find(str(model["name"])) or {})
        except OllamaRefused:
            continue  # a stranger that is broken
        if path:
            return Path(path).parent
    return None


def _manifests(run: Run, stage: str) -> Iterator[Manifest]:
    """Those that can be read, of this run and of all beside it."""
    yield from _readable(sorted(run.root.parent.glob(f"*/{stage}/{NAME}")))


def _readable(paths: Iterable[Path]) -> Iterator[Manifest]:
    for path in paths:
        try:
            found = read_manifest(path.parent)
        except ChangedInput:
            continue
        if found:
            yield found
