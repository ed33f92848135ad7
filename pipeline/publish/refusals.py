"""What is looked at before anything is sent: checks, names, licences, secrets."""

import json
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.card import Licence, Measured, forbidding, unknown
from pipeline.errors import ChangedInput, PipeError
from pipeline.publish.contents import Item
from pipeline.publish.wish import Wish
from pipeline.run import Emit, Note, Run, Stage
from pipeline.run.folder import MADE_BY

_SMALL = 2**20
"""Bytes up to which a file is looked through for paths; larger ones are weights, vocabularies."""


def check_name(wish: Wish, licence: Licence) -> None:
    """Raises PipeError for a name that the Llama licence does not allow, with one that it does."""
    if licence.llama and not licence.llama.allows(wish.name):
        owner = wish.repository.partition("/")[0]
        raise PipeError(
            f"{wish.repository} is made from {licence.llama.title}, whose licence has the name of "
            'such a model begin with "Llama".',
            f"Call it: pipe publish {owner}/{licence.llama.allowed(wish.name)}",
        )


def check_licence(licence: Licence, base: str, emit: Emit) -> None:
    """Raises PipeError where a copy of the Llama licence has to go along and is not at hand."""
    if licence.llama and not licence.text:
        raise PipeError(
            f"{licence.llama.title}'s licence has to go along with the model, and no copy of it "
            "is at hand.",
            "Put its text into serve.license, then: pipe export --force",
        )
    if not licence.is_known:
        emit(Note(f"The licence of {base} is not known here: read its card.", warning=True))
    elif licence.text is None:
        emit(Note(f"No text of the licence {licence.id} goes along: none is at hand.", True))


def check_data(sources: Sequence[Mapping[str, Any]], wish: Wish, emit: Emit) -> None:
    """Say what the data ask. Raises PipeError, without force, where they forbid what is made."""
    if forbidden := forbidding(sources):
        said = f"No work made from it may be passed on: {', '.join(forbidden)}."
        if not wish.force:
            raise PipeError(said, f"With the owner's leave: pipe publish {wish.repository} --force")
        emit(Note(f"{said} Published all the same: --force.", warning=True))
    if nameless := unknown(sources):
        names = ", ".join(nameless)
        emit(Note(f"The licence of {names} is not known here: see that it allows this.", True))
    for duty in sorted({duty for each in sources for duty in each.get("duties") or ()}):
        bound = [str(each["dataset"]) for each in sources if duty in (each.get("duties") or ())]
        emit(Note(f"The model is {duty}, as {', '.join(bound)} is; its card says so."))


def gates(run: Run, wish: Wish, emit: Emit) -> list[Mapping[str, str]]:
    """The gates of `pipe check`. Raises PipeError, without force, where one failed.

    Empty, and said so, where they were not run on these files.
    """
    found: list[Mapping[str, str]] = []
    if results := _current(run, "check", "The files were not checked", emit):
        found = results["gates"]
    failed = [gate["name"] for gate in found if gate["status"] == "failed"]
    if failed and not wish.force:
        raise PipeError(
            f"pipe check failed: {', '.join(failed)}.",
            f"See what to do: pipe check. As it is: pipe publish {wish.repository} --force",
        )
    if failed:
        emit(Note(f"Published though checks failed, with --force: {', '.join(failed)}.", True))
    return found


def measured(run: Run, emit: Emit) -> Measured | None:
    """The results of `pipe eval`; None, and said so, where they are not of these files."""
    results = _current(run, "eval", "The quality was not measured", emit)
    manifest = run.last("eval")
    if results is None or manifest is None:
        return None
    section = manifest.section
    tasks = manifest.facts.get("tasks", {})
    return Measured(results, section["eval"]["tasks"][0], section["engines"], tasks)


def check_secrets(items: Iterable[Item], token: str | None) -> None:
    """Raises PipeError for a file that holds the hub's token, or the path of a folder here."""
    places = {f"{place}/".encode() for place in (Path.home(), Path.cwd()) if len(place.parts) > 1}
    for item in items:
        with _content(item) as content:
            if token and content.find(token.encode()) >= 0:
                raise PipeError(
                    f"{item.path} holds your token for the hub. Nothing was sent.",
                    "Revoke that token, and find out how it came there.",
                )
            small = item.entry.bytes <= _SMALL and not item.path.startswith("tokenizer.")
            if small and any(content.find(place) >= 0 for place in places):
                raise PipeError(
                    f"{item.path} names a folder of this machine. Nothing was sent.",
                    "Take it out of what that file is made from.",
                )


@contextmanager
def _content(item: Item) -> Iterator[bytes | mmap.mmap]:
    if isinstance(item.source, bytes):
        yield item.source
    elif item.entry.bytes == 0:  # which cannot be mapped
        yield b""
    else:
        with (
            item.source.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            yield content


def _current(run: Run, stage: Stage, without: str, emit: Emit) -> dict[str, Any] | None:
    """A stage's results.json, where it is whole and of the files that are there now."""
    command = f"{MADE_BY[stage]} {run.options}"
    if run.last(stage) is None:
        emit(Note(f"{without}: {command}", warning=True))
        return None
    try:
        run.require(stage)
        path = run.folder(stage) / "results.json"
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ChangedInput, ValueError):
        emit(Note(f"{without} as they are now: {command}", warning=True))
        return None
    return found
