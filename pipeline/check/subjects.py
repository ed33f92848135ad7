"""How a run, a file and a model in Ollama become what is checked."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.chat import FORMATS, ChatFormat, Conversation, Encoder, conversation_of
from pipeline.check.context import loaded_context
from pipeline.check.identity import served_blob
from pipeline.check.measure import Measures
from pipeline.check.part import RunPart
from pipeline.check.subject import GREEDY, Need, Subject
from pipeline.engines.contenders import exported, served_name
from pipeline.engines.gguf_file import GgufFile, read_gguf
from pipeline.engines.llamacpp import LlamaCppEngine
from pipeline.engines.ollama import OllamaServer
from pipeline.errors import PipeError
from pipeline.run import Note

BASELINE = "baseline.json"
_CONTEXT = 4096
"""Tokens of context for a file that nobody says one of: what Ollama gives without a GPU."""
_LIMIT = 1024
"""Most tokens of a reply of a model of which nothing is known."""
_NUM_CTX = re.compile(r"^num_ctx\s+(\d+)\s*$", re.MULTILINE)
_NAMES = ("Dan", "Kim", "Mia", "Tom")
_THINGS = ("pens", "hats", "coins", "books", "maps")
_NO_SERVER = "This run is not registered with an Ollama that answers."
_REGISTER = "Start it (ollama serve), then: pipe register && pipe check"


def run_subject(part: RunPart, scratch: Path) -> Subject:
    """A run with its exported files, and with Ollama where it is registered there."""
    recipe, run = part.recipe, part.run
    files = {type: run.folder("export") / file for type, file in exported(recipe, run).items()}
    layers = -1 if recipe.train.device == "cuda" else 0
    opened = partial(_opened, encoder=part.encoder, n_ctx=recipe.num_ctx, layers=layers)
    name = served_name(run)
    missing: dict[Need, tuple[str, str]] = {} if name else {"server": (_NO_SERVER, _REGISTER)}
    for difference in part.trained.differences():
        part.emit(Note(difference, warning=True))
    return Subject(
        files=files,
        questions=questions([conversation_of(row) for row in part.rows]),
        open_file=opened,
        n_ctx=recipe.num_ctx,
        limit=recipe.num_ctx,
        format=part.encoder.format,
        thinks=part.encoder.format.thinks,
        part=part,
        server=OllamaServer.from_environment() if name else None,
        name=name or "",
        missing=missing,
        measures=Measures(part, files, opened, recipe.num_ctx, scratch, _known(part)),
    )


def file_subject(path: Path) -> Subject:
    """Any GGUF file. Raises PipeError for none."""
    header = read_gguf(path, "Make or fetch the file again.")
    n_ctx = min(_CONTEXT, _trained_context(header))
    template = _template(header)
    return Subject(
        files={_label(path): path},
        questions=questions([]),
        open_file=partial(_opened, encoder=None, n_ctx=n_ctx, layers=-1),
        n_ctx=n_ctx,
        limit=_LIMIT,
        format=_format(template, "jinja"),
        thinks=_thinks(template),
    )


def served_subject(server: OllamaServer, name: str) -> Subject:
    """Any model in Ollama, with its file where that lies on this disk.

    Raises OllamaUnreachable, and PipeError where there is no such model.
    """
    shown = server.find(name)
    if shown is None:
        raise PipeError(f"Ollama has no model {name}.", "See what it has: ollama list")
    files, missing, template = _blob(server, name)
    capable = "thinking" in (shown.get("capabilities") or ())
    n_ctx = _stated_context(server, name, shown)
    known = _format(str(shown.get("template", "")), "ollama_template")
    return Subject(
        files=files,
        questions=questions([]),
        open_file=partial(_opened, encoder=None, n_ctx=min(n_ctx, _CONTEXT), layers=-1),
        n_ctx=n_ctx,
        limit=_LIMIT,
        format=known or _format(template, "jinja"),
        server=server,
        name=name,
        thinks=capable or _thinks(template),
        missing=missing,
    )


def questions(first: Sequence[Conversation]) -> list[Conversation]:
    """These, and short sums in words until there are enough to compare greedy replies."""
    made = (_story(number) for number in range(GREEDY))
    return [*first, *islice(made, max(0, GREEDY - len(first)))]


def _story(number: int) -> Conversation:
    things = _THINGS[number % len(_THINGS)]
    name = _NAMES[number % len(_NAMES)]
    content = (
        f"{name} has {11 + number} {things}. {name} finds {1 + number % 7} more. "
        f"{name} sells {1 + number % 5}. How many {things} does {name} have now?"
    )
    return [{"role": "user", "content": content}]


def _opened(path: Path, encoder: Encoder | None, n_ctx: int, layers: int) -> LlamaCppEngine:
    return LlamaCppEngine(path, encoder, n_ctx=n_ctx, gpu_layers=layers)


def _known(part: RunPart) -> Mapping[str, Any]:
    """What the last check kept of the base; whether it still holds its key tells."""
    try:
        found = json.loads((part.run.folder("check") / BASELINE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _blob(
    server: OllamaServer, name: str
) -> tuple[dict[str, Path], dict[Need, tuple[str, str]], str]:
    """The model's file by its type, why there is none to read, and its chat template."""
    try:
        path, _ = served_blob(server, name)
        if not server.is_loopback:
            raise PipeError(f"The server {server.url} is another machine.")
        header = read_gguf(path)
    except (PipeError, OSError) as error:
        hint = "Check the file where it lies: pipe check --gguf FILE"
        return {}, {"file": (f"The file of {name} cannot be read from here: {error}", hint)}, ""
    return {_label(path): path}, {}, _template(header)


def _stated_context(server: OllamaServer, name: str, shown: Mapping[str, Any]) -> int:
    """The model's num_ctx, or the one that the server gives it when it loads it."""
    if stated := _NUM_CTX.search(str(shown.get("parameters") or "")):
        return int(stated[1])
    server.chat(name, [{"role": "user", "content": "Hi"}], options={"num_predict": 1})
    return loaded_context(server, name) or _CONTEXT


def _label(path: Path) -> str:
    return path.stem[:24]


def _template(header: GgufFile) -> str:
    return str(header.metadata.get("tokenizer.chat_template", ""))


def _format(template: str, kind: str) -> ChatFormat | None:
    """The format of ours whose template of this kind it is."""
    return next((f for f in FORMATS.values() if getattr(f, kind) == template), None)


def _thinks(template: str) -> bool:
    return all(tag in template for tag in ("<think>", "</think>"))


def _trained_context(header: GgufFile) -> int:
    architecture = header.metadata.get("general.architecture", "llama")
    return int(header.metadata.get(f"{architecture}.context_length", _CONTEXT))
