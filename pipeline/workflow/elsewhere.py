"""What lies outside a run, which `pipe clean` names and leaves to those that keep it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipeError
from pipeline.run import Run
from pipeline.run.disk import bytes_freed


@dataclass(frozen=True)
class Place:
    """Something large that others may use too."""

    what: str
    where: str
    bytes: int
    how: str
    """The command of its keeper that removes it."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def elsewhere(runs: Sequence[Run]) -> list[Place]:
    """The hub's cache, and what these runs gave an Ollama that answers; what is not there is left
    out."""
    return [*_hub(), *_ollama(runs)]


def _hub() -> Iterator[Place]:
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    if size := bytes_freed(folder):
        what = "bases and data sets from the hub"
        yield Place(what, str(folder), size, "hf cache ls, then hf cache rm")


def _ollama(runs: Sequence[Run]) -> Iterator[Place]:
    from pipeline.engines.ollama import OllamaServer, full_name

    served = [made for run in runs if (made := run.last("serve"))]
    names = {full_name(str(m["name"])): str(m["name"]) for s in served for m in s.facts["models"]}
    if not names:
        return
    server = OllamaServer.from_environment()
    try:
        sizes = {full_name(str(each["name"])): int(each["size"]) for each in server.tags()}
    except PipeError:
        return
    there = [name for name in names if name in sizes]
    if there:
        command = " ".join(["ollama rm", *(names[name] for name in there)])
        total = sum(sizes[name] for name in there)
        yield Place("models in Ollama", server.url, total, command)
